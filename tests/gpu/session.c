/* One session alone, with a room and pages of its own. (contract: session.h) */
#include "session.h"

#include <stdlib.h>

int session_new(const gpu_case *of, moec_cuda *device, int64_t chunk, int64_t capacity, gpu_session *to, moec_error **error) {
    *to = (gpu_session){.device = device, .page_count = (capacity + MOEC_PAGE - 1) / MOEC_PAGE};
    int failure = moec_cuda_room_new(device, chunk, &to->room, error);
    if (failure) return failure;
    to->pages = calloc((size_t)to->page_count + 1, sizeof *to->pages);
    to->positions = calloc((size_t)chunk + 1, sizeof *to->positions);
    to->states = moec_cuda_take(device, (size_t)of->description.state_bytes);
    bool all = to->pages && to->positions && to->states;
    for (int64_t at = 0; all && at < to->page_count; at++) {
        to->pages[at] = moec_cuda_take(device, (size_t)of->description.cache_bytes_per_position * MOEC_PAGE);
        all = to->pages[at] != NULL;
    }
    if (all) return MOEC_OK;
    session_free(to);
    return moec_fail(error, MOEC_OUT_OF_MEMORY, "no memory for a session's pages");
}

void session_free(gpu_session *of) {
    for (int64_t at = 0; of->pages && at < of->page_count; at++) moec_cuda_give(of->device, of->pages[at]);
    if (of->states) moec_cuda_give(of->device, of->states);
    moec_cuda_room_free(of->room);
    free(of->pages);
    free(of->positions);
    *of = (gpu_session){0};
}

int session_run(gpu_session *of, int32_t sequence, int64_t tokens, moec_pass *pass, moec_error **error) {
    int64_t past = of->pasts[sequence];
    moec_segment segment = {.tokens = tokens, .past = past, .states = of->states, .pages = of->pages, .pasts = of->pasts};
    for (int64_t at = 0; at < tokens; at++) of->positions[at] = past + at;
    pass->tokens = tokens;
    pass->positions = of->positions;
    pass->segments = &segment;
    pass->segment_count = 1;
    int failure = moec_cuda_run(of->room, sequence, pass, error);
    pass->segments = NULL;
    if (!failure) of->pasts[sequence] += tokens;
    return failure;
}
