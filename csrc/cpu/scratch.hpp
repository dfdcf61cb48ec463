// Memory that a kernel works in.
#pragma once

#include <cstdlib>

#include "product.hpp"

namespace minigen::MINIGEN_ISA {

// Memory for T that only grows, one for each thread that calls. nullptr if there is none left.
template <class T>
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  T* get(int64_t count) {
    if (count > count_) {
      std::free(data_);
      const int64_t lines = ceil_div(count * static_cast<int64_t>(sizeof(T)), 64);
      data_ = static_cast<T*>(std::aligned_alloc(64, static_cast<size_t>(lines * 64)));
      count_ = data_ ? count : 0;
    }
    return data_;
  }

 private:
  T* data_ = nullptr;
  int64_t count_ = 0;
};

}  // namespace minigen::MINIGEN_ISA
