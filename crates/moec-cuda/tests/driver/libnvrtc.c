/* A stand-in for NVIDIA's run-time compiler: compiles kernels for this machine's CPU, by c++ with kernels/cuda/tests/shim.h, which
 * MOEC_DOUBLE_SHIM names. What it gives as machine code is the path of the library that came out, in MOEC_DOUBLE_FOLDER: what the
 * stand-in for the driver (libcuda.c) loads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct program {
    char *text;
    char code[4096]; /* the library's path */
    int portable;
} program;

enum { OK = 0, COMPILATION = 6 };

int nvrtcVersion(int *major, int *minor) {
    *major = 0;
    *minor = 1;
    return OK;
}

const char *nvrtcGetErrorString(int result) { return result == COMPILATION ? "the stand-in's compiler failed" : "fine"; }

int nvrtcCreateProgram(program **made, const char *text, const char *name, int headers, const void *sources,
    const void *names) {
    (void)name, (void)headers, (void)sources, (void)names;
    *made = calloc(1, sizeof **made);
    (*made)->text = strdup(text);
    return OK;
}

int nvrtcDestroyProgram(program **made) {
    free((*made)->text);
    free(*made);
    *made = NULL;
    return OK;
}

int nvrtcCompileProgram(program *of, int count, const char *const *options) {
    for (int at = 0; at < count; at++) of->portable |= strstr(options[at], "=compute_") != NULL;
    if (of->portable) return OK;
    char stem[2048], command[16384];
    snprintf(stem, sizeof stem, "%s/kernels-XXXXXX", getenv("MOEC_DOUBLE_FOLDER"));
    if (!mkdtemp(stem)) return COMPILATION;
    snprintf(of->code, sizeof of->code, "%s/kernels.so", stem);
    snprintf(command, sizeof command, "%s/kernels.cpp", stem);
    FILE *file = fopen(command, "w");
    if (!file) return COMPILATION;
    fputs(of->text, file);
    if (fclose(file)) return COMPILATION;
    snprintf(command, sizeof command,
        "c++ -std=c++17 -O1 -w -fPIC -shared -fno-gnu-unique -x c++ -include '%s' '%s/kernels.cpp' -o '%s'",
        getenv("MOEC_DOUBLE_SHIM"), stem, of->code);
    return system(command) ? COMPILATION : OK;
}

static const char PTX[] = "// what a driver would finish";

int nvrtcGetCUBINSize(program *of, size_t *bytes) { return *bytes = strlen(of->code) + 1, OK; }
int nvrtcGetCUBIN(program *of, char *code) { return memcpy(code, of->code, strlen(of->code) + 1), OK; }
int nvrtcGetPTXSize(program *of, size_t *bytes) { return (void)of, *bytes = sizeof PTX, OK; }
int nvrtcGetPTX(program *of, char *code) { return (void)of, memcpy(code, PTX, sizeof PTX), OK; }
int nvrtcGetProgramLogSize(program *of, size_t *bytes) { return (void)of, *bytes = 1, OK; }
int nvrtcGetProgramLog(program *of, char *log) { return (void)of, *log = 0, OK; }
