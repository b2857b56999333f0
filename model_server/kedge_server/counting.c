/* Counts rows of numbers over the bins of many features at once; counting.py says what, and loads it.
 *
 * A number's bin is how many edges lie below it, so it is enough to count, for each edge, the numbers above it: a
 * comparison and an addition for LANES features in one go, without a branch. A tile of rows stays in the first cache
 * while it is compared with every edge. */
#include <stddef.h>
#include <stdint.h>

enum { LANES = 4, EDGES_AT_ONCE = 4, TILE = 32 };
typedef double numbers __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double))));
/* What a comparison gives: -1 where it holds, 0 elsewhere. */
typedef int64_t truths __attribute__((vector_size(LANES * sizeof(int64_t)), aligned(sizeof(int64_t))));

#define ALIGNED __attribute__((aligned(64)))
#define NUMBERS(from) (*(const numbers *)(from))
#define COUNTS(from) (*(truths *)(from))

/* rows: (n_rows, width).
 * edges: (., padded), lowest, highest: (padded); `padded` is `width` rounded up to LANES. What pads them is NaN, which
 * nothing is above. n_edges (padded / LANES): how many there are for each LANES columns, in multiples of EDGES_AT_ONCE.
 * Adds to above (., padded) the numbers above each edge, and to missing (padded) those that are NaN. Sets outside
 * (n_rows) to whether a number of the row is at most its lowest or above its highest. */
#define PARAMETERS                                                                                                    \
    const double *rows, size_t n_rows, size_t width, size_t padded, const double *edges, const size_t *n_edges,       \
        const double *lowest, const double *highest, int64_t *above, int64_t *missing, uint8_t *outside
#define ARGUMENTS rows, n_rows, width, padded, edges, n_edges, lowest, highest, above, missing, outside

static inline __attribute__((always_inline)) void count(PARAMETERS)
{
    for (size_t first = 0; first < n_rows; first += TILE, rows += TILE * width) {
        const size_t n = n_rows - first < TILE ? n_rows - first : TILE;
        ALIGNED truths out[TILE] = {{0}};
        for (size_t column = 0; column < padded; column += LANES) {
            ALIGNED numbers tile[TILE];
            if (width - column >= LANES)
                for (size_t row = 0; row < n; row++)
                    tile[row] = NUMBERS(rows + row * width + column);
            else
                for (size_t row = 0; row < n; row++)
                    for (size_t lane = 0; lane < LANES; lane++)
                        tile[row][lane] = column + lane < width ? rows[row * width + column + lane] : 0;

            const numbers low = NUMBERS(lowest + column), high = NUMBERS(highest + column);
            truths absent = {0};
            for (size_t row = 0; row < n; row++) {
                absent += tile[row] != tile[row];
                /* Added, not or-ed: compilers make a masked store of that, which is slow. */
                out[row] += (tile[row] <= low) | (tile[row] > high);
            }
            COUNTS(missing + column) -= absent;

            for (size_t edge = 0; edge < n_edges[column / LANES]; edge += EDGES_AT_ONCE) {
                const double *e = edges + edge * padded + column;
                const numbers e0 = NUMBERS(e), e1 = NUMBERS(e + padded), e2 = NUMBERS(e + 2 * padded),
                              e3 = NUMBERS(e + 3 * padded);
                truths n0 = {0}, n1 = {0}, n2 = {0}, n3 = {0};
                for (size_t row = 0; row < n; row++) {
                    n0 += tile[row] > e0;
                    n1 += tile[row] > e1;
                    n2 += tile[row] > e2;
                    n3 += tile[row] > e3;
                }
                int64_t *a = above + edge * padded + column;
                COUNTS(a) -= n0;
                COUNTS(a + padded) -= n1;
                COUNTS(a + 2 * padded) -= n2;
                COUNTS(a + 3 * padded) -= n3;
            }
        }
        for (size_t row = 0; row < n; row++)
            outside[first + row] = (out[row][0] | out[row][1] | out[row][2] | out[row][3]) != 0;
    }
}

#if defined(__x86_64__)
#include <cpuid.h>

/* Whether processor and system know AVX2, as Intel's manual says to ask; the builtin for it is not in every compiler's
 * runtime. */
static int has_avx2(void)
{
    enum { OSXSAVE = 1 << 27, AVX = 1 << 28, XMM_AND_YMM = 6, AVX2 = 1 << 5 };
    unsigned a, b, c, d, kept, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (OSXSAVE | AVX)) != (OSXSAVE | AVX))
        return 0;
    __asm__("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
    return (kept & XMM_AND_YMM) == XMM_AND_YMM && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & AVX2);
}

static __attribute__((target("avx2"))) void count_by_avx2(PARAMETERS) { count(ARGUMENTS); }

void kedge_count(PARAMETERS)
{
    /* Asked once: a virtual machine's host answers this, in microseconds. */
    static int avx2 = -1;
    if (avx2 < 0)
        avx2 = has_avx2();
    if (avx2)
        count_by_avx2(ARGUMENTS);
    else
        count(ARGUMENTS);
}
#else
void kedge_count(PARAMETERS) { count(ARGUMENTS); }
#endif
