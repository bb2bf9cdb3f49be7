/* Passes on a GPU: what a pass needs is sent in one piece, kernels are launched one behind the other on the room's stream, and
 * results are fetched. (contract: cuda.h)
 *
 * A pass lies in device memory, always at the same place: kernels are given its address and the layer's rank, so that a launch does
 * not change from pass to pass. Passes of one position each, as decoding has them, are therefore captured: one graph for each
 * shape, from the second pass of that shape on. Where the driver refuses, they are launched as all others. */
#include <stdlib.h>
#include <string.h>

#include "cuda_internal.h"

/* As kernels/cuda/pass.cuh has them. */
typedef struct device_segment {
    int64_t first, tokens, past;
    moec_cu_address states, pages, pasts;
} device_segment;

typedef struct device_pass {
    int64_t tokens, first_output, chunk, segment_count;
    moec_cu_address workspace, weights, inputs, outputs, scratch, positions, pages, segments;
} device_pass;

/* A pass's shape, upon which every launch of it depends; and, once it has come twice, its graph. */
typedef struct shape_graph {
    int64_t sequence, tokens, first_output;
    moec_cu_ready_graph ready;
} shape_graph;

enum { MOST_GRAPHS = 32, MOST_GRAPH_TOKENS = 64 };

struct moec_cuda_room {
    moec_cuda *device;
    int64_t chunk;
    moec_cu_stream stream;
    moec_cu_address workspace, scratch;
    moec_cu_address *ports; /* inputs, then outputs */
    moec_cu_address pass;   /* the pass and all that it points to */
    char *staged;           /* the same, as it is sent */
    size_t pass_bytes;      /* that both have room for */
    shape_graph graphs[MOST_GRAPHS];
    int graph_count, next_graph; /* the next to give way to another */
    bool without_graphs;         /* the driver refused one */
};

/* ---- rooms */

static int64_t port_rows(const moec_port *port, int64_t chunk) { return port->rows == MOEC_ROWS_ONE ? 1 : chunk; }

static const moec_port *port_at(const moec_description *description, int32_t at) {
    return at < description->input_count ? &description->inputs[at] : &description->outputs[at - description->input_count];
}

static int32_t port_count(const moec_description *description) {
    return description->input_count + description->output_count;
}

static void forget_graphs(moec_cuda_room *room) {
    for (int at = 0; at < room->graph_count; at++) {
        if (room->graphs[at].ready) room->device->driver.graph_ready_free(room->graphs[at].ready);
        room->graphs[at] = (shape_graph){0};
    }
    room->graph_count = room->next_graph = 0;
}

/* Room for a pass of so many bytes, and as many again. Graphs know the old address only. */
static moec_cu_result make_pass(moec_cuda_room *room, size_t bytes) {
    const moec_cu *driver = &room->device->driver;
    if (bytes <= room->pass_bytes) return 0;
    forget_graphs(room);
    if (room->pass) driver->release(room->pass);
    room->pass = 0;
    room->pass_bytes = 0;
    free(room->staged);
    room->staged = calloc(2, bytes);
    if (!room->staged) return MOEC_CU_OUT_OF_MEMORY;
    moec_cu_result result = driver->alloc(&room->pass, 2 * bytes);
    if (!result) room->pass_bytes = 2 * bytes;
    return result;
}

static moec_cu_result room_allocate(moec_cuda_room *room) {
    const moec_cu *driver = &room->device->driver;
    const moec_description *description = room->device->description;
    moec_cu_result result = driver->stream_new(&room->stream, MOEC_CU_NON_BLOCKING);
    if (!result)
        result = moec_cuda_allocate(driver, &room->workspace, room->chunk, description->workspace_bytes_per_token,
            description->workspace_bytes_fixed);
    if (!result) result = moec_cuda_allocate(driver, &room->scratch, 1, room->device->image->scratch_bytes, 0);
    for (int32_t at = 0; !result && at < port_count(description); at++) {
        const moec_port *port = port_at(description, at);
        result = moec_cuda_allocate(driver, &room->ports[at], port_rows(port, room->chunk), port->row_bytes, 0);
    }
    return result;
}

int moec_cuda_room_new(moec_cuda *device, int64_t chunk, moec_cuda_room **room, moec_error **error) {
    *room = NULL;
    moec_cuda_room *made = calloc(1, sizeof *made);
    if (!made) return moec_fail(error, MOEC_OUT_OF_MEMORY, "no memory for a pass");
    made->device = device;
    made->chunk = chunk;
    made->ports = calloc((size_t)port_count(device->description) + 1, sizeof *made->ports);
    moec_cu_context popped;
    moec_cu_result result = made->ports ? device->driver.context_push(device->context) : MOEC_CU_OUT_OF_MEMORY;
    if (!result) {
        result = room_allocate(made);
        device->driver.context_pop(&popped);
    }
    if (result) {
        int failure = moec_cuda_failed(&device->driver, result, "give a pass its memory", error);
        moec_cuda_room_free(made);
        return failure;
    }
    *room = made;
    return MOEC_OK;
}

void moec_cuda_room_free(moec_cuda_room *room) {
    if (!room) return;
    const moec_cu *driver = &room->device->driver;
    moec_cu_context popped;
    if (!driver->context_push(room->device->context)) {
        if (room->stream) driver->stream_wait(room->stream);
        forget_graphs(room);
        if (room->stream) driver->stream_free(room->stream);
        moec_cu_address of_room[] = {room->workspace, room->scratch, room->pass};
        for (size_t at = 0; at < sizeof of_room / sizeof *of_room; at++)
            if (of_room[at]) driver->release(of_room[at]);
        for (int32_t at = 0; room->ports && at < port_count(room->device->description); at++)
            if (room->ports[at]) driver->release(room->ports[at]);
        driver->context_pop(&popped);
    }
    free(room->ports);
    free(room->staged);
    free(room);
}

/* ---- what is sent and fetched */

/* Pages that a segment's positions are in, of any sequence. */
static int64_t page_count(const moec_description *description, const moec_segment *segment) {
    int64_t positions = segment->past + segment->tokens;
    for (int32_t at = 0; at < description->sequence_count; at++)
        if (segment->pasts[at] > positions) positions = segment->pasts[at];
    return segment->pages ? (positions + MOEC_PAGE - 1) / MOEC_PAGE : 0;
}

/* Where each part of a sent pass begins. */
typedef struct layout {
    size_t ports, positions, pages, segments, pasts, tables, bytes;
} layout;

static layout layout_of(const moec_description *description, const moec_pass *pass) {
    layout made = {.ports = sizeof(device_pass)};
    size_t tokens = (size_t)pass->tokens, segments = (size_t)pass->segment_count, word = sizeof(int64_t);
    made.positions = made.ports + (size_t)port_count(description) * word;
    made.pages = made.positions + tokens * word;
    made.segments = made.pages + tokens * word;
    made.pasts = made.segments + segments * sizeof(device_segment);
    made.tables = made.pasts + segments * MOEC_MOST_SEQUENCES * word;
    made.bytes = made.tables;
    for (size_t at = 0; at < segments; at++) made.bytes += (size_t)page_count(description, &pass->segments[at]) * word;
    return made;
}

/* The pass and all that it points to, in one copy. */
static moec_cu_result send_pass(moec_cuda_room *room, const moec_pass *pass) {
    moec_cuda *device = room->device;
    const moec_description *description = device->description;
    const layout at = layout_of(description, pass);
    moec_cu_result result = make_pass(room, at.bytes);
    if (result) return result;
    const moec_cu_address there = room->pass;
    char *to = room->staged;
    *(device_pass *)to = (device_pass){
        .tokens = pass->tokens,
        .first_output = pass->first_output,
        .chunk = room->chunk,
        .segment_count = pass->segment_count,
        .workspace = room->workspace,
        .weights = device->weights,
        .inputs = there + at.ports,
        .outputs = there + at.ports + (size_t)description->input_count * sizeof(moec_cu_address),
        .scratch = room->scratch,
        .positions = there + at.positions,
        .pages = there + at.pages,
        .segments = there + at.segments,
    };
    memcpy(to + at.ports, room->ports, (size_t)port_count(description) * sizeof *room->ports);
    memcpy(to + at.positions, pass->positions, (size_t)pass->tokens * sizeof *pass->positions);
    moec_cu_address *pages_of_rows = (moec_cu_address *)(to + at.pages);
    size_t table = at.tables;
    for (int64_t number = 0; number < pass->segment_count; number++) {
        const moec_segment *segment = &pass->segments[number];
        size_t pasts = at.pasts + (size_t)number * MOEC_MOST_SEQUENCES * sizeof(int64_t);
        size_t pages = (size_t)page_count(description, segment) * sizeof(moec_cu_address);
        ((device_segment *)(to + at.segments))[number] = (device_segment){
            .first = segment->first,
            .tokens = segment->tokens,
            .past = segment->past,
            .states = (moec_cu_address)(uintptr_t)segment->states,
            .pages = there + table,
            .pasts = there + pasts,
        };
        memcpy(to + pasts, segment->pasts, (size_t)description->sequence_count * sizeof(int64_t));
        if (pages) memcpy(to + table, segment->pages, pages);
        for (int64_t row = segment->first; row < segment->first + segment->tokens; row++) pages_of_rows[row] = there + table;
        table += pages;
    }
    return device->driver.to_device(there, to, at.bytes, room->stream);
}

static moec_cu_result send_inputs(moec_cuda_room *room, const moec_pass *pass) {
    const moec_description *description = room->device->description;
    moec_cu_result result = 0;
    for (int32_t at = 0; !result && at < description->input_count; at++) {
        const moec_port *port = &description->inputs[at];
        size_t bytes = (size_t)(port_rows(port, pass->tokens) * port->row_bytes);
        if (pass->inputs[at] && bytes)
            result = room->device->driver.to_device(room->ports[at], pass->inputs[at], bytes, room->stream);
    }
    return result;
}

static moec_cu_result take_outputs(moec_cuda_room *room, const moec_pass *pass) {
    const moec_description *description = room->device->description;
    moec_cu_result result = 0;
    for (int32_t at = 0; !result && at < description->output_count; at++) {
        const moec_port *port = &description->outputs[at];
        int64_t first = port->rows == MOEC_ROWS_OUTPUTS ? pass->first_output : 0;
        size_t from = (size_t)(first * port->row_bytes), end = (size_t)(port_rows(port, pass->tokens) * port->row_bytes);
        if (!pass->outputs[at] || from >= end) continue;
        moec_cu_address there = room->ports[description->input_count + at];
        result = room->device->driver.to_host((char *)pass->outputs[at] + from, there + from, end - from, room->stream);
    }
    return result;
}

/* ---- launches */

/* The rows of a launch. */
static int64_t counted(const launch_words *launch, const moec_pass *pass) {
    int64_t rows = launch->times;
    if (launch->kind == ROWS_TOKENS) rows = pass->tokens;
    if (launch->kind == ROWS_OUTPUTS) rows = pass->tokens - pass->first_output;
    if (launch->kind == ROWS_SHARE)
        rows = (pass->tokens * launch->times + (launch->up ? launch->per - 1 : 0)) / launch->per;
    if (launch->sessions == SESSIONS_EACH) rows *= pass->segment_count;
    return rows * launch->each;
}

/* The first way that the rows and the part allow; the last is for any. */
static const way_words *way_of(const moec_cuda *device, const launch_words *launch, const moec_pass *pass) {
    int64_t rows = counted(launch, pass), of_session = (rows + pass->segment_count - 1) / pass->segment_count;
    for (int64_t at = launch->way; at < launch->way + launch->ways - 1; at++) {
        const way_words *way = &device->ways[at];
        int64_t asked = way->of_session ? of_session : rows;
        if (asked >= way->least && asked <= way->most && device->kernels[way->kernel].function) return way;
    }
    return &device->ways[launch->way + launch->ways - 1];
}

static moec_cu_result launch_kernel(moec_cuda_room *room, const kernel *kernel, int64_t rows, int64_t more, int64_t rank) {
    const int32_t *shape = kernel->shape;
    int64_t of_rows = shape[SHAPE_ROWS] ? (rows + shape[SHAPE_ROWS] - 1) / shape[SHAPE_ROWS] : 0;
    int64_t blocks = (of_rows + shape[SHAPE_MORE] + more) * shape[SHAPE_TIMES];
    if (shape[SHAPE_MOST] && blocks > shape[SHAPE_MOST]) blocks = shape[SHAPE_MOST];
    if (blocks < 1) blocks = 1;
    int of_layer = (int)rank;
    void *parameters[] = {&room->pass, &of_layer};
    return room->device->driver.launch(kernel->function, (unsigned)blocks, 1, 1, (unsigned)shape[SHAPE_THREADS], 1, 1,
        (unsigned)shape[SHAPE_SHARED_BYTES], room->stream, parameters, NULL);
}

static moec_cu_result launch_one(moec_cuda_room *room, const moec_pass *pass, const execution *run) {
    const moec_cuda *device = room->device;
    const launch_words *launch = &device->launches[run->launch];
    const way_words *way = way_of(device, launch, pass);
    int64_t more = launch->sessions == SESSIONS_APART ? pass->segment_count - 1 : 0;
    moec_cu_result result = 0;
    for (int64_t at = way->kernel; !result && at < way->kernel + way->kernels; at++)
        result = launch_kernel(room, &device->kernels[at], counted(launch, pass), more, run->rank);
    return result;
}

static moec_cu_address placed(const moec_cuda_room *room, const moec_pass *pass, const place *place, int64_t rank) {
    switch (place->kind) {
    case PLACE_STATE:
        return (moec_cu_address)(uintptr_t)(pass->segments[0].states + place->number + rank * place->more);
    case PLACE_INPUT: return room->ports[place->number];
    case PLACE_OUTPUT: return room->ports[room->device->description->input_count + place->number];
    default: return room->workspace + (moec_cu_address)(place->number * room->chunk + place->more);
    }
}

/* Tells the observer what a bin was given. */
static moec_cu_result tell(moec_cuda_room *room, const moec_pass *pass, const execution *run) {
    const launch_words *launch = &room->device->launches[run->launch];
    const moec_cu *driver = &room->device->driver;
    int64_t tokens = counted(launch, pass);
    size_t bytes = (size_t)(tokens * launch->choices) * 4;
    char *both = malloc(2 * bytes + 1);
    if (!both) return MOEC_CU_OUT_OF_MEMORY;
    moec_cu_result result = driver->to_host(both, placed(room, pass, &launch->indices, run->rank), bytes, room->stream);
    if (!result) result = driver->to_host(both + bytes, placed(room, pass, &launch->weights, run->rank), bytes, room->stream);
    if (!result) result = driver->stream_wait(room->stream);
    if (!result)
        pass->trace(pass->trace_user, (int32_t)launch->route, (int32_t)run->rank, (const int32_t *)both,
            (const float *)(both + bytes), tokens, launch->choices);
    free(both);
    return result;
}

static moec_cu_result launch_all(moec_cuda_room *room, int32_t sequence, const moec_pass *pass) {
    const moec_cuda *device = room->device;
    const run_list *list = &device->lists[sequence];
    moec_cu_result result = 0;
    for (int64_t at = list->first; !result && at < list->first + list->count; at++) {
        const execution *run = &device->executions[at];
        result = launch_one(room, pass, run);
        if (!result && pass->trace && device->launches[run->launch].route >= 0) result = tell(room, pass, run);
    }
    return result;
}

/* ---- graphs */

/* The launches of a pass as a graph; NULL where the driver refuses. */
static moec_cu_ready_graph capture(moec_cuda_room *room, int32_t sequence, const moec_pass *pass) {
    const moec_cu *driver = &room->device->driver;
    if (driver->capture_begin(room->stream, MOEC_CU_CAPTURE_OF_THREAD)) return NULL;
    moec_cu_result launched = launch_all(room, sequence, pass);
    moec_cu_graph graph = NULL;
    moec_cu_ready_graph ready = NULL;
    moec_cu_result ended = driver->capture_end(room->stream, &graph);
    if (!launched && !ended && driver->graph_ready(&ready, graph, 0)) ready = NULL;
    if (!ended && graph) driver->graph_free(graph);
    return ready;
}

/* What is known of the pass's shape; NULL: it is new, and is noted. */
static shape_graph *known(moec_cuda_room *room, int32_t sequence, const moec_pass *pass) {
    for (int at = 0; at < room->graph_count; at++) {
        shape_graph *graph = &room->graphs[at];
        if (graph->sequence == sequence && graph->tokens == pass->tokens && graph->first_output == pass->first_output)
            return graph;
    }
    int at = room->graph_count < MOST_GRAPHS ? room->graph_count++ : room->next_graph;
    room->next_graph = (at + 1) % MOST_GRAPHS;
    if (room->graphs[at].ready) room->device->driver.graph_ready_free(room->graphs[at].ready);
    room->graphs[at] = (shape_graph){sequence, pass->tokens, pass->first_output, NULL};
    return NULL;
}

/* Launches the pass, by its graph where its shape comes again. */
static moec_cu_result launch_shape(moec_cuda_room *room, int32_t sequence, const moec_pass *pass) {
    bool is_decoding = pass->tokens == pass->segment_count && pass->tokens <= MOST_GRAPH_TOKENS;
    if (pass->trace || !is_decoding || room->without_graphs) return launch_all(room, sequence, pass);
    shape_graph *graph = known(room, sequence, pass);
    if (!graph) return launch_all(room, sequence, pass);
    if (!graph->ready) graph->ready = capture(room, sequence, pass);
    if (graph->ready) return room->device->driver.graph_launch(graph->ready, room->stream);
    room->without_graphs = true;
    return launch_all(room, sequence, pass);
}

/* ---- passes */

static moec_cu_result run_all(moec_cuda_room *room, int32_t sequence, const moec_pass *pass) {
    moec_cu_result result = send_inputs(room, pass);
    if (!result) result = send_pass(room, pass);
    if (!result) result = launch_shape(room, sequence, pass);
    if (!result && sequence == 0) result = take_outputs(room, pass);
    moec_cu_result end = room->device->driver.stream_wait(room->stream);
    return result ? result : end;
}

int moec_cuda_run(moec_cuda_room *room, int32_t sequence, const moec_pass *pass, moec_error **error) {
    const moec_cu *driver = &room->device->driver;
    moec_cu_context popped;
    moec_cu_result result = driver->context_push(room->device->context);
    if (!result) {
        result = run_all(room, sequence, pass);
        driver->context_pop(&popped);
    }
    return result ? moec_cuda_failed(driver, result, "run a pass", error) : MOEC_OK;
}
