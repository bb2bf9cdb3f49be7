/* What programs that measure ask of the driver beside what the run time does, on this machine's memory and clock. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../../../kernels/runtime/cuda/driver.h"

struct moec_cu_event {
    struct timespec at;
};

int cuDriverGetVersion(int *version) {
    *version = 0;
    return 0;
}
int cuDeviceGetName(char *name, int room, int device) {
    (void)device;
    strncpy(name, "a stand-in that executes on the CPU", (size_t)room);
    return 0;
}
int cuMemGetInfo_v2(size_t *left, size_t *all) {
    *left = *all = (size_t)1 << 30;
    return 0;
}
int cuMemsetD8_v2(moec_cu_address to, unsigned char value, size_t bytes) {
    memset((void *)(size_t)to, value, bytes);
    return 0;
}
int cuCtxSynchronize(void) { return 0; }
int cuEventCreate(struct moec_cu_event **event, unsigned flags) {
    (void)flags;
    *event = calloc(1, sizeof **event);
    return 0;
}
int cuEventDestroy_v2(struct moec_cu_event *event) {
    free(event);
    return 0;
}
int cuEventRecord(struct moec_cu_event *event, moec_cu_stream stream) {
    (void)stream;
    clock_gettime(CLOCK_MONOTONIC, &event->at);
    return 0;
}
int cuEventSynchronize(struct moec_cu_event *event) {
    (void)event;
    return 0;
}
int cuEventElapsedTime(float *milliseconds, struct moec_cu_event *from, struct moec_cu_event *to) {
    *milliseconds = (float)(to->at.tv_sec - from->at.tv_sec) * 1e3f + (float)(to->at.tv_nsec - from->at.tv_nsec) * 1e-6f;
    return 0;
}
