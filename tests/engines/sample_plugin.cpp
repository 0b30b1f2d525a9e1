// A TensorRT plugin library with one creator, by the interface that TensorRT 10 and 11 call; it creates nothing.
//
// -DNAME="..."   the plugin's name
// -DUNRESOLVED   with a symbol that no library has
// -DNO_ENTRY     without the functions that TensorRT calls
#include <cstdint>

#ifndef NAME
#define NAME "EnginesmithSample"
#endif

namespace nvinfer1
{
enum class APILanguage : int32_t { kCPP = 0 };
enum class TensorRTPhase : int32_t { kBUILD = 0 };
struct InterfaceInfo { char const* kind; int32_t major; int32_t minor; };
struct PluginFieldCollection { int32_t count; void const* fields; };

class IVersionedInterface
{
public:
    virtual APILanguage getAPILanguage() const noexcept { return APILanguage::kCPP; }
    virtual InterfaceInfo getInterfaceInfo() const noexcept = 0;
    virtual ~IVersionedInterface() noexcept = default;
};

class IPluginCreatorInterface : public IVersionedInterface {};

class IPluginCreatorV3One : public IPluginCreatorInterface
{
public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN CREATOR_V3ONE", 1, 0}; }
    virtual void* createPlugin(char const*, PluginFieldCollection const*, TensorRTPhase) noexcept = 0;
    virtual PluginFieldCollection const* getFieldNames() noexcept = 0;
    virtual char const* getPluginName() const noexcept = 0;
    virtual char const* getPluginVersion() const noexcept = 0;
    virtual char const* getPluginNamespace() const noexcept = 0;
};
} // namespace nvinfer1

#ifdef UNRESOLVED
extern "C" int enginesmith_no_library_has_this();
#endif

#ifndef NO_ENTRY
class Creator final : public nvinfer1::IPluginCreatorV3One
{
    void* createPlugin(char const*, nvinfer1::PluginFieldCollection const*, nvinfer1::TensorRTPhase) noexcept override
    {
#ifdef UNRESOLVED
        enginesmith_no_library_has_this();
#endif
        return nullptr;
    }
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override
    {
        static nvinfer1::PluginFieldCollection const none{0, nullptr};
        return &none;
    }
    char const* getPluginName() const noexcept override { return NAME; }
    char const* getPluginVersion() const noexcept override { return "1"; }
    char const* getPluginNamespace() const noexcept override { return ""; }
};

extern "C" void setLoggerFinder(void*) {}

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count)
{
    static Creator creator;
    static nvinfer1::IPluginCreatorInterface* const all[] = {&creator};
    count = 1;
    return all;
}
#else
extern "C" int enginesmith_nothing() { return 0; }
#endif
