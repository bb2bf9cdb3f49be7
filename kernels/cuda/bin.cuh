// Sorting the choices of all tokens by expert, stably: the order of a routing.
//
// Grid: EXPERTS + 1 blocks of 256 threads (ROWS 0: whatever the rows are), one for each expert and one for the choices without
// one. A block counts the choices of lower experts and its own, which is where its slots begin, and then places its own. So
// there is one launch, no scratch, no atomic, and nothing depends on which block is when; all blocks read all indices, which
// stay in the cache. A thread has a stretch of the choices: counts are added up in the order of the threads.
//
// STEP, printed: CHOICES, EXPERTS, SLOT_OF, tokens, indices, offsets, order, slot_of (the contract: `Bin` in the plan).

namespace moec {

template <class STEP> struct Bin {
    static constexpr int THREADS = 256, ROWS = 0, MORE = STEP::EXPERTS + 1, TIMES = 1, SHARED_BYTES = 0;
    static constexpr int WARPS = THREADS / 32;

    static MOEC_DEVICE int bucket(int index) { return (u32)index < (u32)STEP::EXPERTS ? index : STEP::EXPERTS; }

    static MOEC_DEVICE void run(const Pass &pass, int rank) {
        MOEC_SHARED int lower_of[WARPS], own_of[WARPS];
        const int own = (int)block(), count = (int)(STEP::tokens(pass) * STEP::CHOICES);
        const int *indices = STEP::indices(pass, rank);
        // Each warp has a stretch of whole words of votes.
        const int stretch = ((count + 31) / 32 + WARPS - 1) / WARPS * 32;
        const int from = warp() * stretch, to = least(from + stretch, count);
        int lower = 0, mine = 0;
        for (int at = from; at < to; at += 32) {
            int expert = at + lane() < to ? bucket(indices[at + lane()]) : STEP::EXPERTS + 1;
            lower += bits_set(ballot(expert < own));
            mine += bits_set(ballot(expert == own));
        }
        if (lane() == 0) {
            lower_of[warp()] = lower;
            own_of[warp()] = mine;
        }
        barrier();
        int start = 0, slot = 0;
        for (int at = 0; at < WARPS; at++) {
            start += lower_of[at];
            slot += at < warp() ? own_of[at] : 0;
        }
        slot += start;
        if (thread() == 0) STEP::offsets(pass, rank)[own] = start;
        int *order = STEP::order(pass, rank);
        for (int at = from; at < to; at += 32) {
            bool is_own = at + lane() < to && bucket(indices[at + lane()]) == own;
            u32 all = ballot(is_own);
            if (is_own) {
                int place = slot + bits_set(all & ((1u << lane()) - 1));
                order[place] = at + lane();
                if constexpr (STEP::SLOT_OF) STEP::slot_of(pass, rank)[at + lane()] = own < STEP::EXPERTS ? place : -1;
            }
            slot += bits_set(all);
        }
    }
};

} // namespace moec
