/* Times of passes on a GPU, by its own events, and what bounds them. */
#ifndef GPU_BENCH_H
#define GPU_BENCH_H

/* Every workload that `folder`/workloads.txt names (the format: bench.c); a line for each in `results`. 1 where one fails. */
int bench(const char *results, const char *folder);

#endif
