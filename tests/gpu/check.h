/* Cases, run and compared. */
#ifndef GPU_CHECK_H
#define GPU_CHECK_H

/* Runs the cases of these files in processes of their own, appends a line for each to `results`; 0 where all are right. */
int check(const char *results, char **paths, int count);

#endif
