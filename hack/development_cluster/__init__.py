"""A Kubernetes cluster on one Linux machine, for development and tests: `hack/cluster`.

Everything but the GPU is real: API server, controllers, scheduler, for each node a kubelet and a containerd.

    command ─> control_plane ── etcd, API server, controller manager, scheduler, as processes of this machine
            ├> nodes ────────── a node: mount and process namespace, cgroup, bridge, containerd, kubelet
            ├> gpus ─────────── labels as GPU Feature Discovery writes them, tests/cluster/fake_device_plugin
            ├> cluster_network ─ kube-proxy and CoreDNS
            ├> local_services ── an OCI registry that nodes pull from, an S3 server
            ├> images ───────── the product's images from its own Dockerfiles
            └> teardown ─────── leaves nothing behind

A node is a pair of namespaces, because kubelet's device plugin folder (/var/lib/kubelet/device-plugins) is no setting;
they also simplify teardown: when the first process of a node dies, the kernel ends its pods and undoes its mounts.
"""
