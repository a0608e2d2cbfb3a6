// Runs method `forward` of an ExecuTorch program: run_program OPERATORS.so PROGRAM.pte INPUT OUTPUT SIZE...
//
// INPUT holds the float32 values of one tensor of the SIZEs. Every output tensor is written to OUTPUT, one after
// the other. ExecuTorch's face to Python needs torch, which is too large to be fetched for a test.
#include <dlfcn.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

namespace {

int fail(const char* what, const char* why) {
    std::fprintf(stderr, "run_program: %s: %s\n", what, why);
    return 1;
}

}  // namespace

int main(int count, char** words) {
    if (count < 6) return fail("usage", "run_program OPERATORS.so PROGRAM.pte INPUT OUTPUT SIZE...");
    if (!dlopen(words[1], RTLD_NOW)) return fail(words[1], dlerror());

    std::vector<executorch::aten::SizesType> sizes;
    size_t values = 1;
    for (int i = 5; i < count; ++i) {
        sizes.push_back(std::atoi(words[i]));
        values *= size_t(sizes.back());
    }
    std::vector<float> x(values);
    std::ifstream input(words[3], std::ios::binary);
    if (!input.read(reinterpret_cast<char*>(x.data()), std::streamsize(values * sizeof(float))))
        return fail(words[3], "holds fewer values than the sizes say");

    executorch::extension::Module module(words[2]);
    const auto result = module.forward(executorch::extension::from_blob(x.data(), sizes));
    if (!result.ok()) return fail(words[2], "ExecuTorch cannot run it");
    std::ofstream output(words[4], std::ios::binary);
    for (const auto& value : result.get()) {
        const auto& y = value.toTensor();
        output.write(static_cast<const char*>(y.const_data_ptr()), std::streamsize(y.nbytes()));
    }
    return output ? 0 : fail(words[4], "cannot be written");
}
