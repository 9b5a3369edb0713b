// Which variants of the kernels this machine can run.
#pragma once

#include <string>
#include <vector>

#include "network.hpp"

namespace clipper {

// Fastest first.
std::vector<const Kernels*> supported_kernels();

// Returns null if this machine, or this build, does not have it.
const Kernels* find_kernels(const std::string& name);

}  // namespace clipper
