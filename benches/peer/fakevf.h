/* Memory-only fake of an Intel VF behind a fake VFIO, see README. */
#ifndef FAKEVF_H
#define FAKEVF_H
#include <stdint.h>

enum fv_kind { FV_IXGBEVF, FV_IAVF, FV_IGBVF };
/* Where the device leaves what it wrote: in the core's own caches, in the last-level cache, in memory. */
enum fv_lines { FV_WARM, FV_LLC, FV_DRAM };

struct fv {
	enum fv_kind kind;
	int flex;                 /* iavf: offer the flex rx descriptor */
	enum fv_lines lines;
	volatile uint8_t *bar;    /* BAR0 */
	uint64_t vfc_rxring, vfc_txring; /* iavf: from CONFIG_VSI_QUEUES */
	uint32_t vfc_rxlen, vfc_txlen;
	int enabled;              /* iavf: ENABLE_QUEUES came */
	int verbose;
	volatile int run;
	/* device side queue state */
	uint32_t rxhead, txhead;
	uint32_t nrx, ntx;
	uint8_t *rxring, *txring;
	uint32_t rxdsz;
	volatile uint32_t *rdt, *tdt;
	/* where the last filled batch lies (for the floor measurement) */
	volatile uint8_t **last_desc;
	volatile uint8_t **last_pkt;
	uint32_t last_n;
	uint64_t tx_seen, tx_bytes;
};

extern struct fv fv;

void fv_setup(enum fv_kind kind, int flex, const char *sysfs_dir); /* before rte_eal_init */
void fv_thread_start(void);   /* answers the PMD's set-up requests */
void fv_thread_stop(void);
void fv_leave(const char *argument); /* "llc" (CPUs with CLDEMOTE), "dram"; ignores others */
void fv_attach_queues(void);  /* after rte_eth_dev_start: read ring addresses */
uint32_t fv_rx_room(void);
void fv_rx_fill(uint32_t n);  /* device receives n packets */
void fv_tx_complete(void);    /* device sends everything up to the tail */
#endif
