#!/usr/bin/env bash
# Compiles the C++ server. Usage: build_cpp.sh SOURCE FOLDER PROTOS ROOT
# PROTOS has the folder that `import` of the protocol's files starts from.
# ROOT has Debian's gRPC and protobuf: / where they are installed, or where their packages were unpacked.
set -euo pipefail
source=$1 folder=$2 protos=$3 root=${4%/}
libraries=$root/usr/lib/$(uname -m)-linux-gnu

LD_LIBRARY_PATH=$libraries "$root/usr/bin/protoc" -I"$protos" --cpp_out="$folder" --grpc_out="$folder" \
  --plugin=protoc-gen-grpc="$root/usr/bin/grpc_cpp_plugin" "$protos"/enginesmith_contract/protos/*.proto
g++ -O2 -std=c++17 -I"$folder" -I"$root/usr/include" "$source" "$folder"/enginesmith_contract/protos/*.cc \
  -o "$folder/cpp_server" -L"$libraries" -Wl,-rpath,"$libraries" -Wl,--disable-new-dtags -Wl,--copy-dt-needed-entries \
  -lgrpc++ -lgrpc -lgpr -lprotobuf -ldl -lpthread
