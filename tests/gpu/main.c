/* The program that `./dev gpu` carries to a machine with a GPU: libc there, and NVIDIA's driver, and nothing else.
 *
 *   gpu check RESULTS CASE…            cases against what they must give (check.h)
 *   gpu bench RESULTS FOLDER           times, and what bounds them (bench.h)
 *   gpu report RESULTS JSON MARKDOWN   both as tables (report.h)
 *
 * RESULTS gets a line for each finding, its words with tabs between them. */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "check.h"
#include "report.h"

int main(int count, char **words) {
    if (count >= 3 && !strcmp(words[1], "check")) return check(words[2], words + 3, count - 3);
    if (count == 4 && !strcmp(words[1], "bench")) return bench(words[2], words[3]);
    if (count == 5 && !strcmp(words[1], "report")) return report(words[2], words[3], words[4]);
    fprintf(stderr, "usage: gpu check RESULTS CASE... | gpu bench RESULTS FOLDER | gpu report RESULTS JSON MARKDOWN\n");
    return 2;
}
