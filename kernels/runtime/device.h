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
    /* The device's memory, not zeroed, for a page or a session's states; NULL: there is none. To give NULL is nothing. */
    char *(*take)(void *device, size_t bytes);
    void (*give)(void *device, char *at);
    int (*copy)(void *device, char *to, const char *from, size_t bytes, moec_error **error); /* both are the device's */
    /* What passes of up to `chunk` positions need besides; for one call at a time. */
    int (*room_new)(void *device, int64_t chunk, void **room, moec_error **error);
    void (*room_free)(void *room);
    /* One pass along a sequence, to its end. Inputs, outputs and tables of pages are the host's; pages and states the device's;
     * workspace, scratch and weights of `pass` are not looked at. */
    int (*run)(void *room, int32_t sequence, const moec_pass *pass, moec_error **error);
};

#endif
