// The terms of a GAN's loss as functions that a loop can take in.
#pragma once

#include "kernels.hpp"

namespace minigen::MINIGEN_ISA {

// Calls body(real, fake, generator) with the terms of the loss.
template <class Body>
static inline void with_game(GanLoss kind, const Body& body) {
  switch (kind) {
#define GAME(name, real, fake, generator)                                                           \
  case GanLoss::name:                                                                               \
    return body([](float s) { return minigen::real(s); }, [](float s) { return minigen::fake(s); }, \
                [](float s) { return minigen::generator(s); });
    MINIGEN_GAN_LOSSES(GAME)
#undef GAME
  }
}

}  // namespace minigen::MINIGEN_ISA
