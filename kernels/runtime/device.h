/* What the run time asks of a device that runs whole passes in the place of a level's functions. A library that was built for
 * one has the calls linked in (cuda/device.c), and its description names them; no other has any of it. */
#ifndef MOEC_DEVICE_H
#define MOEC_DEVICE_H

#include "moec.h"

/* Every call but the ends returns a code of moec.h and makes an error. MOEC_NO_DEVICE: there is none here that could run the
 * model; the model may be opened on the CPU then. */
struct moec_device_calls {
    const char *name; /* what NAME_level says */
    int32_t number;   /* MOEC_DEVICE_CUDA and so on, see moec.h */
    /* `image` and the description outlive the device; the weights need not. */
    int (*open)(const moec_description *description, const void *image, int64_t image_bytes, const void *weights,
        void **device, moec_error **error);
    void (*close)(void *device);
    /* For passes of up to `chunk` positions, of which it keeps `capacity`. */
    int (*session_new)(void *device, int64_t chunk, int64_t capacity, void **session, moec_error **error);
    void (*session_free)(void *session);
    /* One pass along a sequence, of one segment: workspace, caches and states are the device's own. */
    int (*run)(void *session, int32_t sequence, const moec_pass *pass, moec_error **error);
};

#endif
