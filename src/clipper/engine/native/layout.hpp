// A policy as the kernels see it, with the memory it needs.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "network.hpp"

namespace clipper {

// A layer as Python describes it: inputs, outputs, where weights and biases begin, and 1 if an
// activation follows.
using LayerSpec = std::array<int64_t, 5>;

struct HeadSpec {
  HeadKind kind;
  std::vector<int> sizes;     // categories of every choice; otherwise the number of bits or means
  const float* log_std;       // gaussian, else null
  int64_t log_std_param;      // -1 if it is not learned
};

struct NormalizerSpec {
  const float* mean;
  const float* inverse_std;
  const float* limit;
};

// Zeroed floats, aligned to cache lines.
class Floats {
 public:
  explicit Floats(int64_t size);
  float* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(float* p) const;
  };
  std::unique_ptr<float[], Free> data_;
};

class Policy {
 public:
  Policy(const Kernels& kernels, const float* flat, int64_t num_params, int obs_size,
         Activation activation, const std::array<std::vector<LayerSpec>, kNumChains>& chains,
         const HeadSpec& head, const NormalizerSpec& normalizer);
  Policy(const Policy&) = delete;
  Policy& operator=(const Policy&) = delete;

  // Takes over the parameters as they are now.
  void refresh(Parts parts = kAllParts) { kernels.pack(network_, flat_, packed_->data(), parts); }

  const Kernels& kernels;
  const Network& network() const { return network_; }
  const float* packed() const { return packed_->data(); }
  const Workspace& workspace(int thread = 0) const { return workspaces_[thread]; }
  float* grad_sums() const { return grad_sums_->data(); }

 private:
  void place(const std::array<std::vector<LayerSpec>, kNumChains>& chains);
  void place_workspace();

  const float* flat_;
  Network network_{};
  std::array<std::vector<Layer>, kNumChains> layers_;
  std::vector<int> sizes_;
  std::unique_ptr<Floats> packed_, grad_sums_, memory_;
  Workspace workspaces_[2]{};  // one for every thread
};

}  // namespace clipper
