/* Stands between the run time and the driver (linked with --wrap=dlsym): device memory is poisoned when it is allocated, and
 * while `quiet` the copies and waits of a pass are left out, so that what events time is what the device does of itself. */
#ifndef GPU_BETWEEN_H
#define GPU_BETWEEN_H

#include <stdbool.h>
#include <stddef.h>

#include "../../kernels/runtime/cuda/driver.h"

typedef struct moec_cu_event *moec_cu_event;
typedef struct moec_cu_graph *moec_cu_graph;
typedef struct moec_cu_graph_run *moec_cu_graph_run;

/* What the run time has no use for. Graphs may be missing (NULL). */
typedef struct more_driver {
    moec_cu_result (*error_string)(moec_cu_result, const char **);
    moec_cu_result (*driver_version)(int *);
    moec_cu_result (*device_name)(char *, int, moec_cu_device);
    moec_cu_result (*device_attribute)(int *, int, moec_cu_device);
    moec_cu_result (*memory)(size_t *, size_t *);
    moec_cu_result (*fill)(moec_cu_address, unsigned char, size_t);
    moec_cu_result (*alloc)(moec_cu_address *, size_t);
    moec_cu_result (*release)(moec_cu_address);
    moec_cu_result (*copy)(moec_cu_address, moec_cu_address, size_t, moec_cu_stream);
    moec_cu_result (*event_new)(moec_cu_event *, unsigned);
    moec_cu_result (*event_free)(moec_cu_event);
    moec_cu_result (*event_record)(moec_cu_event, moec_cu_stream);
    moec_cu_result (*event_wait)(moec_cu_event);
    moec_cu_result (*event_elapsed)(float *, moec_cu_event, moec_cu_event);
    moec_cu_result (*context_retain)(moec_cu_context *, moec_cu_device);
    moec_cu_result (*context_push)(moec_cu_context);
    moec_cu_result (*context_wait)(void);
    moec_cu_result (*capture_begin)(moec_cu_stream, int);
    moec_cu_result (*capture_end)(moec_cu_stream, moec_cu_graph *);
    moec_cu_result (*graph_new)(moec_cu_graph_run *, moec_cu_graph, unsigned long long);
    moec_cu_result (*graph_launch)(moec_cu_graph_run, moec_cu_stream);
    moec_cu_result (*graph_free)(moec_cu_graph_run);
} more_driver;

/* False, with a sentence on standard error, where there is no driver. */
bool more_driver_load(more_driver *to);

extern bool between_quiet;
/* All sessions get this one stream, once there is one. */
extern bool between_one_stream;
extern moec_cu_stream between_stream;
/* Launches since it was last set to 0. */
extern long between_launches;

#endif
