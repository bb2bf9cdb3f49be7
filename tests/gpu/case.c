/* Reads a case. (contract: case.h) */
#include "case.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct reader {
    const char *at, *end;
    bool failed;
} reader;

static int64_t word(reader *from) {
    if (from->end - from->at < 8) {
        from->failed = true;
        return 0;
    }
    int64_t value;
    memcpy(&value, from->at, 8);
    from->at += 8;
    return value;
}

static double number(reader *from) {
    int64_t bits = word(from);
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

static blob bytes_of(reader *from) {
    int64_t bytes = word(from);
    int64_t room = from->end - from->at;
    if (bytes < 0 || bytes > room || (bytes + 7) / 8 * 8 > room) {
        from->failed = true;
        return (blob){0};
    }
    blob found = {from->at, (size_t)bytes};
    from->at += (bytes + 7) / 8 * 8;
    return found;
}

static int64_t count(reader *from, int64_t most) {
    int64_t value = word(from);
    if (value >= 0 && value <= most) return value;
    from->failed = true;
    return 0;
}

static void read_ports(reader *from, moec_port *ports, int64_t ports_count) {
    for (int64_t at = 0; at < ports_count; at++) {
        int64_t row_elements = word(from), row_bytes = word(from);
        int32_t dtype = (int32_t)word(from), rows = (int32_t)word(from), sequence = (int32_t)word(from);
        ports[at] = (moec_port){.name = "", .row_elements = row_elements, .row_bytes = row_bytes, .index_limit = -1,
            .dtype = dtype, .rows = rows, .sequence = sequence};
    }
}

static void read_pass(reader *from, const gpu_case *to, pass_case *pass) {
    pass->sequence = word(from);
    pass->tokens = word(from);
    pass->first_output = word(from);
    for (int32_t at = 0; at < to->description.input_count; at++) pass->inputs[at] = bytes_of(from);
    for (int32_t at = 0; at < to->description.output_count; at++) pass->expected[at] = bytes_of(from);
    pass->route_count = count(from, 1 << 20);
    pass->routes = calloc((size_t)pass->route_count + 1, sizeof *pass->routes);
    if (!pass->routes) from->failed = true;
    for (int64_t at = 0; !from->failed && at < pass->route_count; at++) {
        pass->routes[at].route = word(from);
        pass->routes[at].indices = bytes_of(from);
        pass->routes[at].weights = bytes_of(from);
    }
}

static void read_all(reader *from, gpu_case *to) {
    if (from->end - from->at < 8 || memcmp(from->at, "MOECCASE", 8)) from->failed = true;
    word(from);
    if (word(from) != CASE_VERSION) from->failed = true;
    blob name = bytes_of(from);
    if (name.bytes >= sizeof to->name) from->failed = true;
    if (from->failed) return;
    memcpy(to->name, name.at, name.bytes);
    to->tolerance = number(from);
    to->chunk = word(from);
    to->capacity = word(from);
    moec_description *description = &to->description;
    description->name = to->name;
    description->version = "";
    description->weight_bytes = word(from);
    description->workspace_bytes_per_token = word(from);
    description->workspace_bytes_fixed = word(from);
    description->cache_bytes_per_position = word(from);
    description->state_bytes = word(from);
    description->sequence_count = (int32_t)count(from, MOEC_MOST_SEQUENCES);
    for (int32_t at = 0; at < description->sequence_count; at++) description->least_tokens[at] = 1;
    description->whole_pass = 1;
    description->row_bits = 24;
    description->input_count = (int32_t)count(from, MOST_PORTS);
    description->output_count = (int32_t)count(from, MOST_PORTS);
    description->inputs = to->inputs;
    description->outputs = to->outputs;
    read_ports(from, to->inputs, description->input_count);
    read_ports(from, to->outputs, description->output_count);
    to->image = bytes_of(from);
    to->weights = bytes_of(from);
    to->fill_count = count(from, 1 << 16);
    to->fills = calloc((size_t)to->fill_count + 1, sizeof *to->fills);
    if (!to->fills) from->failed = true;
    for (int64_t at = 0; !from->failed && at < to->fill_count; at++) {
        to->fills[at] = (fill){.offset = word(from)};
        to->fills[at].bytes = word(from);
        to->fills[at].dtype = word(from);
        to->fills[at].reach = number(from);
        if (to->fills[at].offset < 0 || to->fills[at].bytes < 0 ||
            to->fills[at].offset > description->weight_bytes - to->fills[at].bytes)
            from->failed = true;
    }
    to->pass_count = count(from, 1 << 16);
    to->passes = calloc((size_t)to->pass_count + 1, sizeof *to->passes);
    if (!to->passes) from->failed = true;
    for (int64_t at = 0; !from->failed && at < to->pass_count; at++) read_pass(from, to, &to->passes[at]);
    if (to->pass_count && to->weights.bytes < (size_t)description->weight_bytes) from->failed = true;
    if (from->at != from->end) from->failed = true;
}

bool case_read(const char *path, gpu_case *to) {
    *to = (gpu_case){0};
    struct stat status;
    int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &status) || status.st_size < 16) {
        fprintf(stderr, "%s cannot be read\n", path);
        if (file >= 0) close(file);
        return false;
    }
    to->mapped_bytes = (size_t)status.st_size;
    to->mapped = mmap(NULL, to->mapped_bytes, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (to->mapped == MAP_FAILED) {
        to->mapped = NULL;
        fprintf(stderr, "%s cannot be mapped\n", path);
        return false;
    }
    reader from = {to->mapped, (const char *)to->mapped + to->mapped_bytes, false};
    read_all(&from, to);
    if (!from.failed) return true;
    fprintf(stderr, "%s is no case of this version\n", path);
    case_free(to);
    return false;
}

void case_free(gpu_case *of) {
    for (int64_t at = 0; of->passes && at < of->pass_count; at++) free(of->passes[at].routes);
    free(of->passes);
    free(of->fills);
    if (of->mapped) munmap(of->mapped, of->mapped_bytes);
    *of = (gpu_case){0};
}
