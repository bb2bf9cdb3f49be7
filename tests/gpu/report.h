/* What was found, as JSON for programs and as tables for people. */
#ifndef GPU_REPORT_H
#define GPU_REPORT_H

int report(const char *results, const char *json, const char *markdown);

#endif
