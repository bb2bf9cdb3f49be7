/* Findings as JSON and as Markdown. (contract: report.h)
 *
 * A line is a kind and its words, with tabs between them; KINDS says what the words are. */
#include "report.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_WORDS = 9, MOST_LINE = 1024, MOST_LINES = 4096, MOST_PEERS = 16 };

static const struct {
    const char *kind, *words[MOST_WORDS];
} KINDS[] = {
    {"machine", {"what", "value"}},
    {"case", {"name", "verdict", "why"}},
    {"sanitizer", {"tool", "verdict", "why"}},
    {"bound", {"what", "by", "rate"}},
    {"work", {"layer", "tokens", "routing", "weight_bytes", "flops"}},
    {"time", {"peer", "layer", "tokens", "routing", "best_us", "median_us", "note"}},
    {"failed", {"peer", "layer", "tokens", "routing", "why"}},
};

typedef struct finding {
    const char *words[MOST_WORDS]; /* the kind first; none is NULL */
} finding;

typedef struct findings {
    finding all[MOST_LINES];
    int count;
} findings;

static bool is(const finding *one, int at, const char *word) { return !strcmp(one->words[at], word); }

static findings *read_all(const char *path) {
    FILE *file = fopen(path, "r");
    findings *made = calloc(1, sizeof *made);
    char line[MOST_LINE];
    while (file && made && made->count < MOST_LINES && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        finding *one = &made->all[made->count++];
        char *rest = strdup(line);
        for (int at = 0; at < MOST_WORDS; at++) {
            char *end = rest ? strchr(rest, '\t') : NULL;
            one->words[at] = rest ? rest : "";
            if (end) *end = 0;
            rest = end ? end + 1 : NULL;
        }
    }
    if (!file) fprintf(stderr, "%s cannot be read\n", path);
    if (file) fclose(file);
    return file ? made : NULL;
}

static void text_of_json(FILE *to, const char *text) {
    fputc('"', to);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') fputc('\\', to);
        if ((unsigned char)*text < 32) fprintf(to, "\\u%04x", (unsigned char)*text);
        else fputc(*text, to);
    }
    fputc('"', to);
}

static void json(FILE *to, const findings *of, const char *date) {
    fprintf(to, "{\"date\": \"%s\", \"findings\": [\n", date);
    for (int at = 0; at < of->count; at++) {
        const finding *one = &of->all[at];
        fprintf(to, "  {\"kind\": ");
        text_of_json(to, one->words[0]);
        for (size_t kind = 0; kind < sizeof KINDS / sizeof *KINDS; kind++) {
            if (!is(one, 0, KINDS[kind].kind)) continue;
            for (int word = 0; KINDS[kind].words[word]; word++) {
                fprintf(to, ", \"%s\": ", KINDS[kind].words[word]);
                text_of_json(to, one->words[word + 1]);
            }
        }
        fprintf(to, "}%s\n", at + 1 < of->count ? "," : "");
    }
    fprintf(to, "]}\n");
}

static void conformance(FILE *to, const findings *of) {
    int cases = 0, right = 0;
    for (int at = 0; at < of->count; at++) {
        cases += is(&of->all[at], 0, "case");
        right += is(&of->all[at], 0, "case") && is(&of->all[at], 2, "right");
    }
    fprintf(to, "\n## Conformance\n\n%d of %d cases are right.\n", right, cases);
    if (right < cases) fprintf(to, "\n| case | what is wrong |\n|---|---|\n");
    for (int at = 0; at < of->count; at++)
        if (is(&of->all[at], 0, "case") && !is(&of->all[at], 2, "right"))
            fprintf(to, "| %s | %s |\n", of->all[at].words[1], of->all[at].words[3]);
    for (int at = 0; at < of->count; at++)
        if (is(&of->all[at], 0, "sanitizer"))
            fprintf(to, "\ncompute-sanitizer %s: %s%s%s.\n", of->all[at].words[1], of->all[at].words[2],
                *of->all[at].words[3] ? ", " : "", of->all[at].words[3]);
}

/* The best rate of a kind. */
static double rate(const findings *of, const char *what) {
    double best = 0;
    for (int at = 0; at < of->count; at++) {
        const finding *one = &of->all[at];
        if (is(one, 0, "bound") && is(one, 1, what) && atof(one->words[3]) > best) best = atof(one->words[3]);
    }
    return best;
}

static double time_of(const findings *of, const finding *work, const char *peer) {
    double best = 0;
    for (int at = 0; at < of->count; at++) {
        const finding *one = &of->all[at];
        if (!is(one, 0, "time") || !is(one, 1, peer)) continue;
        if (!is(one, 2, work->words[1]) || !is(one, 3, work->words[2]) || !is(one, 4, work->words[3])) continue;
        double found = atof(one->words[5]);
        if (best == 0 || found < best) best = found;
    }
    return best;
}

static int peers_of(const findings *of, const char **peers) {
    int count = 0;
    for (int at = 0; at < of->count; at++) {
        const finding *one = &of->all[at];
        bool known = !is(one, 0, "time") || is(one, 1, "moec");
        for (int peer = 0; peer < count && !known; peer++) known = is(one, 1, peers[peer]);
        if (!known && count < MOST_PEERS) peers[count++] = one->words[1];
    }
    return count;
}

static void times(FILE *to, const findings *of) {
    const char *peers[MOST_PEERS];
    int count = peers_of(of, peers);
    double copy = rate(of, "copy"), gemm = rate(of, "gemm");
    fprintf(to, "\n## Times\n\nBounds of this run: copies read and write %.0f GB/s, dense bf16 products make %.0f TFLOP/s.\n", copy,
        gemm);
    for (int at = 0; at < of->count; at++)
        if (is(&of->all[at], 0, "bound"))
            fprintf(to, "\n- %s, by %s: %s\n", of->all[at].words[1], of->all[at].words[2], of->all[at].words[3]);
    fprintf(to, "\nMicroseconds of one call, the best of the rounds. *of bound*: the time over the longer of (weights in use at the rate "
                "of copies) and (operations at the rate of dense products).\n\n| layer | tokens | routing | moec | of bound |");
    for (int peer = 0; peer < count; peer++) fprintf(to, " %s |", peers[peer]);
    fprintf(to, " best peer / moec |\n|---|---|---|---|---|---|");
    for (int peer = 0; peer < count; peer++) fprintf(to, "---|");
    fprintf(to, "\n");
    for (int at = 0; at < of->count; at++) {
        const finding *work = &of->all[at];
        if (!is(work, 0, "work")) continue;
        double ours = time_of(of, work, "moec"), best = 0;
        double reading = copy > 0 ? atof(work->words[4]) / copy / 1e3 : 0;
        double products = gemm > 0 ? atof(work->words[5]) / gemm / 1e6 : 0;
        double bound = reading > products ? reading : products;
        fprintf(to, "| %s | %s | %s |", work->words[1], work->words[2], work->words[3]);
        if (ours > 0) fprintf(to, " %.1f |", ours);
        else fprintf(to, " failed |");
        if (ours > 0 && bound > 0) fprintf(to, " %.2f |", ours / bound);
        else fprintf(to, " |");
        for (int peer = 0; peer < count; peer++) {
            double theirs = time_of(of, work, peers[peer]);
            if (theirs > 0 && (best == 0 || theirs < best)) best = theirs;
            if (theirs > 0) fprintf(to, " %.1f |", theirs);
            else fprintf(to, " |");
        }
        if (best > 0 && ours > 0) fprintf(to, " %.2f |\n", best / ours);
        else fprintf(to, " |\n");
    }
    for (int at = 0; at < of->count; at++) {
        const finding *one = &of->all[at];
        if (is(one, 0, "failed"))
            fprintf(to, "\n- %s, %s, %s tokens, %s: %s\n", one->words[1], one->words[2], one->words[3], one->words[4],
                one->words[5]);
    }
}

int report(const char *results, const char *json_path, const char *markdown_path) {
    findings *of = read_all(results);
    FILE *as_json = of ? fopen(json_path, "w") : NULL, *as_text = of ? fopen(markdown_path, "w") : NULL;
    if (!as_json || !as_text) {
        fprintf(stderr, "%s or %s cannot be written\n", json_path, markdown_path);
        return 1;
    }
    char date[32];
    time_t now = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    json(as_json, of, date);
    fprintf(as_text, "# On a GPU\n\nMade by `./dev gpu` on %s; what ran, and how, stands in `tests/gpu`. Only ratios within the run "
                     "mean anything elsewhere.\n", date);
    for (int at = 0; at < of->count; at++)
        if (is(&of->all[at], 0, "machine")) fprintf(as_text, "\n- %s: %s\n", of->all[at].words[1], of->all[at].words[2]);
    conformance(as_text, of);
    times(as_text, of);
    int failed = fclose(as_json) | fclose(as_text);
    return failed ? 1 : 0;
}
