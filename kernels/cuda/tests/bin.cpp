/* The order of a routing against a stable sort: no tokens, one, many; ties, empty and crowded experts, choices without one. */
#include "check.h"
#include "device.cuh"
#include "bin.cuh"

using namespace moec;

struct moec::Pass {
    i64 tokens;
    int *indices, *offsets, *order, *slot_of;
};

namespace {

template <int CHOICE_COUNT, int EXPERT_COUNT, bool HAS_SLOT_OF> struct Step {
    static constexpr int CHOICES = CHOICE_COUNT, EXPERTS = EXPERT_COUNT;
    static constexpr bool SLOT_OF = HAS_SLOT_OF;
    static i64 tokens(const Pass &pass) { return pass.tokens; }
    static const int *indices(const Pass &pass, int) { return pass.indices; }
    static int *offsets(const Pass &pass, int) { return pass.offsets; }
    static int *order(const Pass &pass, int) { return pass.order; }
    static int *slot_of(const Pass &pass, int) { return pass.slot_of; }
};

template <class STEP> void one(int tokens, int kind) {
    int count = tokens * STEP::CHOICES;
    check::Buffer<int> indices((size_t)count), offsets(STEP::EXPERTS + 1), order((size_t)count), slot_of((size_t)count);
    for (int at = 0; at < count; at++)
        indices[(size_t)at] = kind == 0 ? check::below(STEP::EXPERTS)
            : kind == 1                 ? STEP::EXPERTS / 2
                                        : check::below(STEP::EXPERTS + 4) - 2;
    Pass pass = {tokens, indices.data(), offsets.data(), order.data(), slot_of.data()};
    typedef Bin<STEP> Kernel;
    moec_shim::launch(Kernel::MORE * Kernel::TIMES, Kernel::THREADS, 0, [&] { Kernel::run(pass, 0); });
    std::vector<std::vector<int>> of((size_t)STEP::EXPERTS + 1);
    for (int at = 0; at < count; at++) {
        int expert = indices[(size_t)at];
        of[(size_t)(expert < 0 || expert >= STEP::EXPERTS ? STEP::EXPERTS : expert)].push_back(at);
    }
    int slot = 0;
    for (int expert = 0; expert <= STEP::EXPERTS; expert++) {
        check::same(offsets[(size_t)expert], slot, "offsets", expert);
        for (int choice : of[(size_t)expert]) {
            check::same(order[(size_t)slot], choice, "order", slot);
            if (STEP::SLOT_OF) check::same(slot_of[(size_t)choice], expert < STEP::EXPERTS ? slot : -1, "slot_of", choice);
            slot++;
        }
    }
}

} // namespace

int main() {
    for (unsigned seed : {0u, 1u, 5u}) {
        moec_shim::state.seed = seed;
        for (int tokens : {0, 1, 3, 31, 32, 33, 700})
            for (int kind = 0; kind < 3; kind++) {
                one<Step<2, 8, true>>(tokens, kind);
                one<Step<1, 1, true>>(tokens, kind);
                one<Step<3, 37, false>>(tokens, kind);
            }
    }
    return check::finish("bin");
}
