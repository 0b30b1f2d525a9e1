// fake_device_plugin offers GPUs that do not exist through kubelet's real device plugin API (v1beta1), so that the real
// scheduler counts them and the real kubelet hands them out.
//
// Usage: fake_device_plugin OFFER
//
// OFFER is a JSON file, read again each second: {"nvidia.com/gpu": ["GPU-...", ...], "nvidia.com/mig-1g.10gb": [...]}.
// A resource that once was offered stays with no device when it leaves the file, as a real plugin's does.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const pause = time.Second

// plugin serves one resource.
type plugin struct {
	api.UnimplementedDevicePluginServer
	resource string
	mutex    sync.Mutex
	devices  []string
	changed  chan struct{} // closed, and replaced, when devices change
}

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	if len(os.Args) != 2 {
		log.Fatal("usage: fake_device_plugin OFFER")
	}
	plugins := map[string]*plugin{}
	for ; ; time.Sleep(pause) {
		offer, err := read(os.Args[1])
		if err != nil {
			log.Printf("the offer stays as it is: %v", err)
			continue
		}
		for resource := range plugins {
			if _, offered := offer[resource]; !offered {
				offer[resource] = nil
			}
		}
		for resource, devices := range offer {
			if plugins[resource] == nil {
				plugins[resource] = &plugin{resource: resource, changed: make(chan struct{})}
				go plugins[resource].run()
			}
			plugins[resource].set(devices)
		}
	}
}

func read(path string) (map[string][]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	offer := map[string][]string{}
	return offer, json.Unmarshal(text, &offer)
}

func (p *plugin) set(devices []string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if slices.Equal(p.devices, devices) {
		return
	}
	log.Printf("%s: %d devices", p.resource, len(devices))
	p.devices = devices
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *plugin) current() ([]string, <-chan struct{}) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.devices, p.changed
}

// run serves and registers, and does both again whenever kubelet has restarted: it empties the plugins' folder then.
func (p *plugin) run() {
	for ; ; time.Sleep(pause) {
		if err := p.serve(); err != nil {
			log.Printf("%s: %v", p.resource, err)
		}
	}
}

func (p *plugin) serve() error {
	name := "fake-" + strings.NewReplacer("/", "-", ".", "-").Replace(p.resource) + ".sock"
	path := filepath.Join(api.DevicePluginPath, name)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, p)
	defer server.Stop()
	go func() { _ = server.Serve(listener) }()
	if err := p.register(name); err != nil {
		return err
	}
	log.Printf("%s: registered", p.resource)
	for ; ; time.Sleep(pause) {
		if _, err := os.Stat(path); err != nil {
			return err
		}
	}
}

func (p *plugin) register(endpoint string) error {
	connection, err := grpc.NewClient("unix://"+api.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = api.NewRegistrationClient(connection).Register(limit, &api.RegisterRequest{
		Version:      api.Version,
		Endpoint:     endpoint,
		ResourceName: p.resource,
		Options:      &api.DevicePluginOptions{},
	})
	return err
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	for {
		devices, changed := p.current()
		answer := &api.ListAndWatchResponse{}
		for _, id := range devices {
			answer.Devices = append(answer.Devices, &api.Device{ID: id, Health: api.Healthy})
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// Allocate names the devices in the variable that NVIDIA's container runtime reads.
func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		answer.ContainerResponses = append(answer.ContainerResponses, &api.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")},
		})
	}
	return answer, nil
}
