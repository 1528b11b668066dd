// Loads a TorchScript file, gives it rows, and prints its first output, a number a line.
#include <torch/script.h>

#include <fstream>
#include <iomanip>
#include <iostream>

int main(int argc, char** argv) {
  torch::jit::Module model = torch::jit::load(argv[1]);
  torch::InferenceMode guard;
  std::vector<torch::jit::IValue> inputs;
  int64_t rows = std::stoll(argv[2]);
  for (int place = 3; place + 2 < argc; place += 3) {  // a file of numbers, how many columns, which type
    int64_t columns = std::stoll(argv[place + 1]);
    auto type = std::string(argv[place + 2]) == "int64" ? torch::kInt64 : torch::kFloat64;
    torch::Tensor values = torch::empty({rows, columns}, type);
    std::ifstream file(argv[place], std::ios::binary);
    file.read(static_cast<char*>(values.data_ptr()), values.nbytes());
    inputs.emplace_back(values);
  }
  torch::jit::IValue output = model.forward(inputs);
  torch::Tensor first = output.isTuple() ? output.toTuple()->elements()[0].toTensor() : output.toTensor();
  first = first.contiguous().flatten();
  for (int64_t place = 0; place < first.numel(); ++place)
    std::cout << std::setprecision(9) << first[place].item<float>() << "\n";
}
