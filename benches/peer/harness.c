/*
 * The measurement, the same code for every driver: one thread plays the device (untimed) and drives (timed) by turns.
 *
 * A round is half a ring of packets. The clock is lfence rdtsc lfence with its own cost subtracted; a run's figure is the
 * median of its rounds. A loop of dependent adds before and after a run tells core clocks per tick of the TSC, because the
 * clock of a shared machine drifts: what is reported are core cycles.
 *
 * Commands, one a line, and their answers:
 *   run PATH BURST ROUNDS    "CORE LOW TSC CATCHUP": core cycles per packet, the same of the 5th percentile, TSC ticks per packet,
 *                            untimed polls per round that were needed before the device found room. "refuses" where the
 *                            driver receives nothing with this burst size.
 *   insn PATH BURST          instructions per packet, exact: the trap flag is set and SIGTRAPs are counted
 *   quit
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <immintrin.h>
#include "fakevf.h"
#include "harness.h"

#define BURST_MAX 256
#define CATCHUP_MAX 4096
#define REFUSED_AFTER 1000

static inline __attribute__((always_inline)) uint64_t ticks(void)
{ _mm_lfence(); uint64_t t = __rdtsc(); _mm_lfence(); return t; }

/* single steps: EFLAGS.TF */
static volatile uint64_t steps;
static void on_trap(int s) { (void)s; steps++; }
static inline __attribute__((always_inline)) void tf_on(void)
{ asm volatile("sub $128,%%rsp; pushfq; orq $0x100,(%%rsp); popfq; lea 128(%%rsp),%%rsp" ::: "memory", "cc"); }
static inline __attribute__((always_inline)) void tf_off(void)
{ asm volatile("lea -128(%%rsp),%%rsp; pushfq; andq $~0x100,(%%rsp); popfq; lea 128(%%rsp),%%rsp" ::: "memory", "cc"); }

static volatile uint64_t sink;
/* floors: no driver, just the memory that the device wrote */
static __attribute__((noinline)) void floor_descriptors(void *self, uint32_t count, uint32_t burst)
{
	uint64_t s = 0; (void)self; (void)burst;
	for (uint32_t i = 0; i < count; i++) s += *(volatile uint64_t *)(fv.last_desc[i] + 8);
	sink += s;
}
static __attribute__((noinline)) void floor_packets(void *self, uint32_t count, uint32_t burst)
{
	uint64_t s = 0; (void)self; (void)burst;
	for (uint32_t i = 0; i < count; i++)
		s += *(volatile uint64_t *)(fv.last_desc[i] + 8) + *(volatile uint64_t *)fv.last_pkt[i];
	sink += s;
}
static __attribute__((noinline)) void nothing(void *self, uint32_t count, uint32_t burst)
{ (void)self; (void)count; (void)burst; asm volatile(""); }

struct path { const char *name; int driver; void (*floor)(void *, uint32_t, uint32_t); int receives; };
static const struct path paths[] = {
	{"rx", HN_RX, NULL, 1}, {"tx", HN_TX, NULL, 0}, {"rx+tx", HN_RX_TX, NULL, 1},
	{"rx+swap+tx", HN_RX_SWAP_TX, NULL, 1}, {"empty", HN_EMPTY, NULL, 0},
	{"floor-descriptors", -1, floor_descriptors, 1}, {"floor-packets", -1, floor_packets, 1},
};

static const struct hn_side *side;
static uint32_t count; /* packets of a round */
static uint64_t overhead, catchup;

static void prepare(const struct path *p, uint32_t burst)
{
	side->ready(side->self, p->driver == HN_TX ? count : 0, burst);
	if (!p->receives) return;
	/* iavf's vector paths in DPDK take bursts over 32 but re-arm only 32 a call. Empty polls let them catch up; a figure
	 * with such polls lacks re-arm work. */
	for (int i = 0; fv_rx_room() < count && i < CATCHUP_MAX; i++) {
		catchup++;
		if (side->poll(side->self, 32)) abort();
	}
	fv_rx_fill(count);
}

static void finish(const struct path *p)
{
	if (p->floor)
		for (uint32_t got = 0; got < count;) got += side->poll(side->self, 32);
	fv_tx_complete();
}

static int ascending(const void *a, const void *b)
{ uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b; return x < y ? -1 : x > y; }

static double clocks_per_tick(void)
{
	double best = 0;
	for (int k = 0; k < 6; k++) {
		uint64_t n = 10000, x = 1, c = n, a = ticks();
		asm volatile("1:\n\t" "add %2,%0\n\tadd %2,%0\n\tadd %2,%0\n\tadd %2,%0\n\tadd %2,%0\n\tadd %2,%0\n\tadd %2,%0\n\tadd %2,%0\n\t"
			     "add %2,%0\n\tadd %2,%0\n\tdec %1\n\tjnz 1b" : "+r"(x), "+r"(c) : "r"(x) : "cc");
		double r = 10.0 * n / (double)(ticks() - a);
		if (r > best) best = r;
	}
	return best;
}

static void run(const struct path *p, uint32_t burst, uint32_t rounds)
{
	void (*body)(void *, uint32_t, uint32_t) = p->floor ? p->floor : side->drive[p->driver];
	uint64_t *took = malloc(rounds * sizeof *took);
	uint32_t warm = rounds / 4;
	catchup = 0;
	double before = clocks_per_tick();
	for (uint32_t r = 0; r < warm + rounds; r++) {
		prepare(p, burst);
		uint64_t a = ticks(); body(side->self, count, burst); uint64_t b = ticks();
		finish(p);
		if (r >= warm) took[r - warm] = b - a > overhead ? b - a - overhead : 0;
	}
	double clock = (before + clocks_per_tick()) / 2;
	qsort(took, rounds, sizeof *took, ascending);
	double median = (double)took[rounds / 2] / count, low = (double)took[rounds / 20] / count;
	printf("%.4f %.4f %.4f %.2f\n", median * clock, low * clock, median, (double)catchup / (warm + rounds));
	free(took);
}

static void instructions(const struct path *p, uint32_t burst)
{
	void (*body)(void *, uint32_t, uint32_t) = p->floor ? p->floor : side->drive[p->driver];
	enum { ROUNDS = 2 };
	uint64_t total = 0;
	steps = 0; tf_on(); nothing(side->self, count, burst); tf_off();
	uint64_t base = steps;
	for (int i = 0; i < ROUNDS; i++) {
		prepare(p, burst);
		steps = 0; tf_on(); body(side->self, count, burst); tf_off();
		total += steps - base;
		finish(p);
	}
	printf("%.3f\n", (double)total / ROUNDS / count);
}

/* a vector path may refuse short bursts: DPDK's iavf receives nothing with fewer than 8 */
static int refuses(uint32_t burst)
{
	static signed char known[BURST_MAX + 1]; /* 0 unknown, 1 takes it, 2 refuses */
	if (!known[burst]) {
		uint32_t got = 0;
		side->ready(side->self, 0, burst);
		fv_rx_fill(32);
		for (int i = 0; i < REFUSED_AFTER && got < 32; i++) got += side->poll(side->self, burst);
		known[burst] = got ? 1 : 2;
		if (got < 32) side->ready(side->self, 0, 32);
		while (got < 32) got += side->poll(side->self, 32);
	}
	return known[burst] == 2;
}

int hn_serve(const struct hn_side *s, uint32_t ring)
{
	side = s; count = ring / 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	struct sigaction trap = {.sa_handler = on_trap};
	sigaction(SIGTRAP, &trap, NULL);
	if (fv.nrx != ring || fv.ntx != ring) {
		fprintf(stderr, "harness: rings of %u and %u instead of %u\n", fv.nrx, fv.ntx, ring);
		return 1;
	}
	/* device and driver agree about packets */
	side->ready(side->self, 0, 32);
	fv_rx_fill(count);
	if (!side->check(side->self, count)) { fprintf(stderr, "harness: a received packet is wrong\n"); return 1; }
	uint64_t seen = fv.tx_seen, bytes = fv.tx_bytes;
	side->ready(side->self, count, 32);
	side->drive[HN_TX](side->self, count, 32);
	fv_tx_complete();
	if (fv.tx_seen - seen != count || fv.tx_bytes - bytes != 60ull * count) {
		fprintf(stderr, "harness: %lu packets with %lu bytes were sent instead of %u\n",
			(unsigned long)(fv.tx_seen - seen), (unsigned long)(fv.tx_bytes - bytes), count);
		return 1;
	}
	overhead = ~0ull;
	for (int i = 0; i < 20000; i++) {
		uint64_t a = ticks(); nothing(NULL, 0, 0); uint64_t took = ticks() - a;
		if (took < overhead) overhead = took;
	}
	printf("ready\n");

	char line[128], what[16], name[32];
	while (fgets(line, sizeof line, stdin)) {
		uint32_t burst = 32, rounds = 1;
		if (sscanf(line, "%15s %31s %u %u", what, name, &burst, &rounds) < 3 || burst < 1 || burst > BURST_MAX || !rounds) break;
		const struct path *p = NULL;
		for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) if (!strcmp(paths[i].name, name)) p = &paths[i];
		if (!p) break;
		if (p->receives && !p->floor && refuses(burst)) printf("refuses\n");
		else if (!strcmp(what, "run")) run(p, burst, rounds);
		else if (!strcmp(what, "insn")) instructions(p, burst);
		else break;
	}
	return 0;
}
