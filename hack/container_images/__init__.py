"""Builds the product's images with docker, podman or buildah.

product.py     which images there are, and a name for what they are made of
toolchains.py  the table of runtime/toolchain/toolchains.toml
builders.py    the three programs
values.py      the part of the chart's values that names the images
command.py     `hack/images`
"""
