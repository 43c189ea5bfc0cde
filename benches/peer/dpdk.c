/* DPDK's side: an unmodified poll-mode driver on the fake VF. usage: dpdk FAMILY RING SIMD [flex] [llc | dram] */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <rte_cpuflags.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include "fakevf.h"
#include "harness.h"

#define BURST_MAX 256
#define RING_MAX 4096
#define CPU 1

static struct rte_mempool *pool;
enum { PORT = 0 };
static struct rte_mbuf *stock[RING_MAX];

/* iavf and ixgbe ring the doorbell with sfence and MOVDIRI where the CPU has it, which on the cached memory that stands for the
 * BAR here evicts the line: DPDK is made to believe that it has not, so that the doorbell is a plain store */
int rte_cpu_get_flag_enabled(enum rte_cpu_flag_t flag)
{
	static int (*real)(enum rte_cpu_flag_t);
	if (!real) real = dlsym(RTLD_NEXT, "rte_cpu_get_flag_enabled");
	return flag == RTE_CPUFLAG_MOVDIRI ? 0 : real(flag);
}

static __attribute__((noinline)) void drive_rx(void *self, uint32_t count, uint32_t burst)
{	/* the cheapest way home that there is: straight into the pool's cache */
	struct rte_mbuf *b[BURST_MAX]; uint32_t got = 0; (void)self;
	while (got < count) {
		uint16_t n = rte_eth_rx_burst(PORT, 0, b, burst);
		if (n) rte_mempool_put_bulk(pool, (void **)b, n);
		got += n;
	}
}
static __attribute__((noinline)) void drive_tx(void *self, uint32_t count, uint32_t burst)
{
	uint32_t sent = 0; (void)self;
	while (sent < count) {
		uint32_t want = count - sent < burst ? count - sent : burst;
		sent += rte_eth_tx_burst(PORT, 0, stock + sent, want);
	}
}
static inline __attribute__((always_inline)) void forward(uint32_t count, uint32_t burst, int swap)
{
	struct rte_mbuf *b[BURST_MAX]; uint32_t got = 0;
	while (got < count) {
		uint16_t n = rte_eth_rx_burst(PORT, 0, b, burst);
		if (!n) continue;
		if (swap)
			for (uint16_t i = 0; i < n; i++) {
				uint8_t *p = rte_pktmbuf_mtod(b[i], uint8_t *);
				uint64_t d, s;
				memcpy(&d, p, 8); memcpy(&s, p + 6, 8);
				uint64_t dm = d & 0xffffffffffffull;
				uint32_t d0 = (uint32_t)dm; uint16_t d1 = dm >> 32;
				uint32_t s0 = (uint32_t)s; uint16_t s1 = (s >> 32) & 0xffff;
				memcpy(p, &s0, 4); memcpy(p + 4, &s1, 2);
				memcpy(p + 6, &d0, 4); memcpy(p + 10, &d1, 2);
			}
		uint16_t m = rte_eth_tx_burst(PORT, 0, b, n);
		if (m < n) rte_pktmbuf_free_bulk(b + m, n - m);
		got += n;
	}
}
static __attribute__((noinline)) void drive_rx_tx(void *self, uint32_t count, uint32_t burst)
{ (void)self; forward(count, burst, 0); }
static __attribute__((noinline)) void drive_rx_swap_tx(void *self, uint32_t count, uint32_t burst)
{ (void)self; forward(count, burst, 1); }
static __attribute__((noinline)) void drive_empty(void *self, uint32_t count, uint32_t burst)
{
	struct rte_mbuf *b[BURST_MAX]; (void)self;
	for (uint32_t i = 0; i < count; i++) if (rte_eth_rx_burst(PORT, 0, b, burst)) abort();
}

static void ready(void *self, uint32_t count, uint32_t burst)
{
	(void)self; (void)burst;
	if (!count) return;
	if (rte_pktmbuf_alloc_bulk(pool, stock, count)) { fprintf(stderr, "dpdk: the pool is empty\n"); exit(1); }
	for (uint32_t i = 0; i < count; i++) stock[i]->pkt_len = stock[i]->data_len = 60;
}
static uint32_t poll(void *self, uint32_t burst)
{
	struct rte_mbuf *b[BURST_MAX]; (void)self;
	uint16_t n = rte_eth_rx_burst(PORT, 0, b, burst);
	rte_pktmbuf_free_bulk(b, n);
	return n;
}
static int check(void *self, uint32_t count)
{
	uint32_t got = 0; (void)self;
	while (got < count) got += rte_eth_rx_burst(PORT, 0, stock + got, 32);
	int right = 1;
	for (uint32_t i = 0; i < count; i++)
		right &= stock[i]->pkt_len == 60 && stock[i]->data_len == 60 && *rte_pktmbuf_mtod_offset(stock[i], uint32_t *, 42) == i;
	rte_pktmbuf_free_bulk(stock, count);
	return right;
}

int main(int argc, char **argv)
{
	if (argc < 4) { fprintf(stderr, "usage: dpdk FAMILY RING SIMD [flex] [llc | dram]\n"); return 1; }
	int flex = 0;
	for (int i = 4; i < argc; i++) flex |= !strcmp(argv[i], "flex");
	enum fv_kind kind = !strcmp(argv[1], "ixgbevf") ? FV_IXGBEVF : !strcmp(argv[1], "iavf") ? FV_IAVF : FV_IGBVF;
	static const char *pmds[] = {"ixgbe", "iavf", "e1000"};
	uint32_t ring = atoi(argv[2]);
	char sysfs[64], simd[64], lcore[16], pmd[128], rm[96];
	snprintf(sysfs, sizeof sysfs, "/tmp/fakevf-sysfs.%d", getpid());
	snprintf(rm, sizeof rm, "rm -rf '%s'", sysfs);
	fv_setup(kind, flex, sysfs);
	snprintf(simd, sizeof simd, "--force-max-simd-bitwidth=%s", argv[3]);
	snprintf(lcore, sizeof lcore, "%d", CPU);
	snprintf(pmd, sizeof pmd, "librte_net_%s.so", pmds[kind]);
	char *ea[] = {"dpdk", "-l", lcore, "--iova-mode=va", "--in-memory", "--no-telemetry", "-m", "128", "--single-file-segments",
		      "-d", "librte_bus_pci.so", "-d", "librte_mempool_ring.so", "-d", pmd, "--log-level=lib.eal:error",
		      "--log-level=pmd.net.*:error", simd, NULL};
	int ec = 0; while (ea[ec]) ec++;
	fv_thread_start();
	int rc = rte_eal_init(ec, ea);
	if (rc < 0 || rte_eth_dev_count_avail() != 1) { fprintf(stderr, "dpdk: no port was probed\n"); if (system(rm)) {} return 1; }
	pool = rte_pktmbuf_pool_create("pool", 4 * ring + 4096, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	struct rte_eth_dev_info info;
	if (!pool || rte_eth_dev_info_get(PORT, &info)) { fprintf(stderr, "dpdk: no pool\n"); return 1; }
	struct rte_eth_conf conf = {0};
	conf.txmode.offloads = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
	struct rte_eth_txconf tx = info.default_txconf; tx.offloads = conf.txmode.offloads;
	if (rte_eth_dev_configure(PORT, 1, 1, &conf) || rte_eth_rx_queue_setup(PORT, 0, ring, SOCKET_ID_ANY, &info.default_rxconf, pool) ||
	    rte_eth_tx_queue_setup(PORT, 0, ring, SOCKET_ID_ANY, &tx) || rte_eth_dev_start(PORT)) {
		fprintf(stderr, "dpdk: the port does not start\n"); return 1; }
	usleep(300000);
	struct rte_eth_link link = {0}; if (rte_eth_link_get_nowait(PORT, &link)) return 1;
	fv_attach_queues();
	fv_thread_stop();
	for (int i = 4; i < argc; i++) fv_leave(argv[i]);
	if (system(rm)) {}
	cpu_set_t cs; CPU_ZERO(&cs); CPU_SET(CPU, &cs); sched_setaffinity(0, sizeof cs, &cs);
	const struct hn_side side = {
		.drive = {drive_rx, drive_tx, drive_rx_tx, drive_rx_swap_tx, drive_empty},
		.ready = ready, .poll = poll, .check = check,
	};
	rc = hn_serve(&side, ring);
	fflush(stdout);
	_exit(rc);
}
