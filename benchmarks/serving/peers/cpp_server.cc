// A small C++ gRPC server over libonnxruntime: it parses, runs and answers, and checks and counts nothing.
//
// Usage: cpp_server PORT THREADS LIBONNXRUNTIME MODEL.onnx
//
// Each thread has a completion queue of its own and runs what it received.

#include <dlfcn.h>
#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "enginesmith_contract/protos/inference.grpc.pb.h"

namespace {

using inference::GRPCInferenceService;
using inference::ModelInferRequest;
using inference::ModelInferResponse;

// ONNX Runtime's C interface by position: the wheels have the library without its header, and the table only grows.
struct Api {
  const void* const* table;
  template <typename Result, typename... Arguments>
  Result Get(size_t at, Arguments... arguments) const {
    return reinterpret_cast<Result (*)(Arguments...)>(const_cast<void*>(table[at]))(arguments...);
  }
  // For functions that return a status.
  template <typename... Arguments>
  void Call(size_t at, Arguments... arguments) const {
    void* status = Get<void*>(at, arguments...);
    if (status != nullptr) {
      std::cerr << Get<const char*>(2, static_cast<const void*>(status)) << std::endl;
      std::exit(1);
    }
  }
};

struct Base {
  const void* const* (*get_api)(uint32_t);
};

class Session {
 public:
  Session(const char* library, const char* model) {
    void* handle = dlopen(library, RTLD_NOW);
    if (handle == nullptr) {
      std::cerr << dlerror() << std::endl;
      std::exit(1);
    }
    auto base = reinterpret_cast<const Base* (*)()>(dlsym(handle, "OrtGetApiBase"));
    api_.table = base()->get_api(16);
    void *env, *options, *allocator;
    api_.Call(3, 3, "cpp", &env);                                     // CreateEnv
    api_.Call(10, &options);                                          // CreateSessionOptions
    api_.Call(24, options, 1);                                        // SetIntraOpNumThreads
    api_.Call(7, env, model, static_cast<const void*>(options), &session_);  // CreateSession
    api_.Call(78, &allocator);                                        // GetAllocatorWithDefaultOptions
    api_.Call(69, 0, 0, &memory_);                                    // CreateCpuMemoryInfo
    api_.Call(36, session_, size_t{0}, allocator, &input_);           // SessionGetInputName
    api_.Call(37, session_, size_t{0}, allocator, &output_);          // SessionGetOutputName
  }

  void Run(const ModelInferRequest& request, ModelInferResponse* response) const {
    const auto& tensor = request.inputs(0);
    const std::string& raw = request.raw_input_contents(0);
    void *input, *output = nullptr, *info, *bytes;
    api_.Call(49, memory_, const_cast<char*>(raw.data()), raw.size(), tensor.shape().data(),
              static_cast<size_t>(tensor.shape_size()), 1, &input);  // CreateTensorWithDataAsOrtValue
    api_.Call(9, session_, nullptr, &input_, &input, size_t{1}, &output_, size_t{1}, &output);  // Run
    api_.Call(65, output, &info);                                    // GetTensorTypeAndShape
    size_t rank, count;
    api_.Call(61, info, &rank);   // GetDimensionsCount
    api_.Call(64, info, &count);  // GetTensorShapeElementCount
    int64_t shape[8];
    api_.Call(62, info, shape, rank);     // GetDimensions
    api_.Call(51, output, &bytes);        // GetTensorMutableData
    response->set_model_name(request.model_name());
    response->set_model_version("1");
    response->set_id(request.id());
    auto* described = response->add_outputs();
    described->set_name(output_);
    described->set_datatype("FP32");
    for (size_t axis = 0; axis < rank; ++axis) described->add_shape(shape[axis]);
    response->add_raw_output_contents(bytes, count * 4);
    api_.Get<void>(99, info);    // ReleaseTensorTypeAndShapeInfo
    api_.Get<void>(96, output);  // ReleaseValue
    api_.Get<void>(96, input);
  }

 private:
  Api api_;
  void* session_;
  void* memory_;
  char* input_;
  char* output_;
};

// One call: it waits for its request, then for its answer to have been sent.
class Call {
 public:
  Call(GRPCInferenceService::AsyncService* service, grpc::ServerCompletionQueue* queue, const Session& session)
      : service_(service), queue_(queue), session_(session), responder_(&context_) {
    service_->RequestModelInfer(&context_, &request_, &responder_, queue_, queue_, this);
  }

  void Proceed(bool ok) {
    if (answered_ || !ok) {
      delete this;
      return;
    }
    new Call(service_, queue_, session_);
    session_.Run(request_, &response_);
    answered_ = true;
    responder_.Finish(response_, grpc::Status::OK, this);
  }

 private:
  GRPCInferenceService::AsyncService* service_;
  grpc::ServerCompletionQueue* queue_;
  const Session& session_;
  grpc::ServerContext context_;
  grpc::ServerAsyncResponseWriter<ModelInferResponse> responder_;
  ModelInferRequest request_;
  ModelInferResponse response_;
  bool answered_ = false;
};

}  // namespace

int main(int, char** arguments) {
  Session session(arguments[3], arguments[4]);
  GRPCInferenceService::AsyncService service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(std::string("127.0.0.1:") + arguments[1], grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(64 << 20);
  builder.RegisterService(&service);
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
  for (int index = 0; index < std::atoi(arguments[2]); ++index) queues.push_back(builder.AddCompletionQueue());
  auto server = builder.BuildAndStart();
  std::vector<std::thread> threads;
  for (auto& queue : queues) {
    for (int index = 0; index < 64; ++index) new Call(&service, queue.get(), session);
    threads.emplace_back([&queue] {
      void* tag;
      bool ok;
      while (queue->Next(&tag, &ok)) static_cast<Call*>(tag)->Proceed(ok);
    });
  }
  for (auto& thread : threads) thread.join();
}
