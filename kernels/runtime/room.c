/* Rooms: what a pass needs besides weights and sessions. A model keeps those that its calls have used, so that sessions cost
 * no more than their caches and later calls allocate nothing. Slots are taken and filled by single exchanges: there is no
 * lock that a fork could leave behind. */
#include <stdlib.h>

#include "internal.h"

/* count * each + more, or SIZE_MAX, which no allocation can satisfy. */
static size_t bytes_of(int64_t count, int64_t each, int64_t more) {
    size_t bytes;
    if (__builtin_mul_overflow((size_t)count, (size_t)each, &bytes)) return SIZE_MAX;
    if (__builtin_add_overflow(bytes, (size_t)more, &bytes)) return SIZE_MAX;
    return bytes;
}

static void room_free(const moec_open_model *model, moec_room *room) {
    if (!room) return;
    const moec_description *description = model->description;
    if (room->on_device) model->calls->room_free(room->on_device);
    moec_block_free(&room->workspace);
    moec_block_free(&room->scratch);
    for (int32_t at = 0; room->staging && at < description->output_count; at++) moec_block_free(&room->staging[at]);
    free(room->staging);
    free(room->inputs);
    free(room->outputs);
    free(room->ids);
    free(room->positions);
    free(room->pages);
    free(room->segments);
    free(room);
}

static moec_room *room_new(const moec_open_model *model, int64_t chunk) {
    const moec_description *description = model->description;
    moec_room *room = calloc(1, sizeof *room);
    if (!room) return NULL;
    room->chunk = chunk;
    room->inputs = calloc((size_t)description->input_count + 1, sizeof *room->inputs);
    room->outputs = calloc((size_t)description->output_count + 1, sizeof *room->outputs);
    room->staging = calloc((size_t)description->output_count + 1, sizeof *room->staging);
    room->ids = calloc((size_t)chunk, sizeof *room->ids);
    room->positions = calloc((size_t)chunk, sizeof *room->positions);
    room->pages = calloc((size_t)chunk, sizeof *room->pages);
    room->segments = calloc((size_t)chunk, sizeof *room->segments);
    size_t workspace = bytes_of(chunk, description->workspace_bytes_per_token, description->workspace_bytes_fixed);
    if (room->inputs && room->outputs && room->staging && room->ids && room->positions && room->pages && room->segments &&
        moec_block_new(&room->workspace, 1, workspace) &&
        moec_block_new(&room->scratch, (size_t)model->threads, (size_t)description->scratch_bytes))
        return room;
    room_free(model, room);
    return NULL;
}

moec_room *moec_room_take(moec_open_model *model, int64_t chunk) {
    for (int at = 0; at < MOEC_ROOMS; at++) {
        moec_room *room = atomic_exchange(&model->rooms[at], NULL);
        if (room && room->chunk >= chunk) return room;
        room_free(model, room);
    }
    return room_new(model, chunk);
}

void moec_room_give(moec_open_model *model, moec_room *room) {
    for (int at = 0; at < MOEC_ROOMS; at++) {
        moec_room *empty = NULL;
        if (atomic_compare_exchange_strong(&model->rooms[at], &empty, room)) return;
    }
    room_free(model, room);
}

void moec_rooms_free(moec_open_model *model) {
    for (int at = 0; at < MOEC_ROOMS; at++) room_free(model, atomic_exchange(&model->rooms[at], NULL));
}
