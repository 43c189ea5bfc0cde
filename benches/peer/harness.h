/* What both sides of the comparison are measured with. A side says how its driver does each of five things. */
#ifndef HARNESS_H
#define HARNESS_H
#include <stdint.h>

enum hn_path { HN_RX, HN_TX, HN_RX_TX, HN_RX_SWAP_TX, HN_EMPTY, HN_DRIVER_PATHS };

struct hn_side {
	void *self;                                                 /* handed to everything below */
	/* timed: `count` packets (polls, for HN_EMPTY) in bursts of `burst` */
	void (*drive[HN_DRIVER_PATHS])(void *self, uint32_t count, uint32_t burst);
	/* untimed, before each HN_TX: have `count` packets of 60 bytes ready, in bursts of `burst`; before other paths
	 * with `count` 0, to get ready for the burst size */
	void (*ready)(void *self, uint32_t count, uint32_t burst);
	/* untimed: one receive burst whose packets are freed; returns how many there were */
	uint32_t (*poll)(void *self, uint32_t burst);
	/* untimed: receive `count` packets and check each: 60 bytes, and its number at byte 42; false when one is wrong */
	int (*check)(void *self, uint32_t count);
};

/* Answers the commands on stdin until it ends; see harness.c. */
int hn_serve(const struct hn_side *side, uint32_t ring);
#endif
