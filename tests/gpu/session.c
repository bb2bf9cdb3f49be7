/* One session alone. (contract: session.h) */
#include "session.h"

int session_new(const gpu_case *of, moec_cuda *device, int64_t chunk, int64_t capacity, gpu_session *to, moec_error **error) {
    (void)of;
    *to = (gpu_session){.device = device};
    return moec_cuda_session_new(device, chunk, capacity, &to->session, error);
}

void session_free(gpu_session *of) {
    moec_cuda_session_free(of->session);
    *of = (gpu_session){0};
}

int session_run(gpu_session *of, int32_t sequence, int64_t tokens, moec_pass *pass, moec_error **error) {
    moec_segment segment = {.tokens = tokens, .past = of->pasts[sequence], .pasts = of->pasts};
    pass->tokens = tokens;
    pass->segments = &segment;
    pass->segment_count = 1;
    int failure = moec_cuda_run(of->session, sequence, pass, error);
    pass->segments = NULL;
    if (!failure) of->pasts[sequence] += tokens;
    return failure;
}
