/*
 * A fake VFIO and, behind it, a fake VF: the same for DPDK, which links it in, and for vfring, which gets it by LD_PRELOAD.
 *
 * Neither is changed. The dynamic linker prefers the open64, ioctl and so on of this file to libc's. The PCI function is a
 * directory with the attributes that sysfs would have (DPDK is told by SYSFS_PCI_DEVICES; for others the paths below
 * /sys/bus/pci/devices are redirected). The VFIO device is a sparse memfd laid out as VFIO lays out its regions (region
 * index << 40), so that pread, pwrite and mmap on it just work, and BAR0 is plain memory.
 *
 * What always holds: while the harness times, no thread of this file runs, and every doorbell is a plain store.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <immintrin.h>
#include "fakevf.h"

struct fv fv;

#define PCIADDR "0000:03:10.0"
#define GROUPNO "77"
#define BARSZ   0x10000u

static int cont_fd = -1, group_fd = -1, dev_fd = -1;
static int dev_master = -1;
static char sysfs[256];               /* the directory that stands for sysfs */

/* ---------------------------------------------------------------- interposed libc calls */
static int (*real_open)(const char *, int, ...);
static int (*real_ioctl)(int, unsigned long, ...);
static int (*real_stat)(const char *, struct stat64 *);

static void reals(void)
{
	if (!real_open) real_open = dlsym(RTLD_NEXT, "open64");
	if (!real_ioctl) real_ioctl = dlsym(RTLD_NEXT, "ioctl");
	if (!real_stat) real_stat = dlsym(RTLD_NEXT, "stat64");
}

/* a path of our function in sysfs, where it really is */
#define SYSFS_FUNCTION "/sys/bus/pci/devices/" PCIADDR
static const char *redirect(const char *path, char *to, size_t size)
{
	size_t n = sizeof SYSFS_FUNCTION - 1;
	if (!sysfs[0] || !path || strncmp(path, SYSFS_FUNCTION, n) || (path[n] && path[n] != '/')) return path;
	snprintf(to, size, "%s/devices/" PCIADDR "%s", sysfs, path + n);
	return to;
}

int open64(const char *path, int flags, ...)
{
	mode_t mode = 0;
	char to[512];
	reals();
	path = redirect(path, to, sizeof to);
	if (flags & (O_CREAT | O_TMPFILE)) {
		va_list ap; va_start(ap, flags); mode = va_arg(ap, mode_t); va_end(ap);
	}
	if (!strcmp(path, "/dev/vfio/vfio"))
		return cont_fd = memfd_create("fake-vfio-container", 0);
	if (!strcmp(path, "/dev/vfio/" GROUPNO))
		return group_fd = memfd_create("fake-vfio-group", 0);
	return real_open(path, flags, mode);
}

int stat64(const char *restrict path, struct stat64 *restrict st)
{
	reals();
	if (!strcmp(path, "/sys/module/vfio") || !strcmp(path, "/sys/module/vfio_pci"))
		return real_stat("/sys", st);
	return real_stat(path, st);
}

DIR *opendir(const char *path) /* DPDK 25.11 looks for /dev/vfio first */
{
	static DIR *(*real)(const char *);
	char to[512];
	if (!real) real = dlsym(RTLD_NEXT, "opendir");
	return real(strncmp(path, "/dev/vfio", 9) ? redirect(path, to, sizeof to) : "/dev");
}

ssize_t readlink(const char *restrict path, char *restrict buf, size_t size)
{
	static ssize_t (*real)(const char *, char *, size_t);
	char to[512];
	if (!real) real = dlsym(RTLD_NEXT, "readlink");
	return real(redirect(path, to, sizeof to), buf, size);
}

int statx(int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict out)
{
	static int (*real)(int, const char *, int, unsigned, struct statx *);
	char to[512];
	if (!real) real = dlsym(RTLD_NEXT, "statx");
	return real(dir, redirect(path, to, sizeof to), flags, mask, out);
}

/* all page sizes and one IOVA range of 48 bits, as a capability when the caller left room for it */
static int iommu_info(struct vfio_iommu_type1_info *i)
{
	struct { struct vfio_iommu_type1_info_cap_iova_range cap; struct vfio_iova_range r; } c = {
		.cap = { .header = { .id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, .version = 1 }, .nr_iovas = 1 },
		.r = { .start = 0, .end = (1ull << 48) - 1 } };
	uint32_t room = i->argsz, need = sizeof *i + sizeof c;
	i->flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
	i->iova_pgsizes = 1ull << 12 | 1ull << 21 | 1ull << 30;
	i->argsz = need; i->cap_offset = 0;
	if (room >= need) { i->cap_offset = sizeof *i; memcpy((char *)i + sizeof *i, &c, sizeof c); }
	return 0;
}

int ioctl(int fd, unsigned long req, ...)
{
	va_list ap; va_start(ap, req); void *arg = va_arg(ap, void *); va_end(ap);
	reals();
	if (fd >= 0 && fd == cont_fd) {
		switch (req) {
		case VFIO_GET_API_VERSION: return VFIO_API_VERSION;
		case VFIO_CHECK_EXTENSION: return (long)arg == VFIO_TYPE1_IOMMU || (long)arg == VFIO_TYPE1v2_IOMMU;
		case VFIO_SET_IOMMU:
			if ((long)arg == VFIO_TYPE1_IOMMU || (long)arg == VFIO_TYPE1v2_IOMMU) return 0;
			errno = EINVAL; return -1;
		case VFIO_IOMMU_GET_INFO: return iommu_info(arg);
		case VFIO_IOMMU_MAP_DMA: case VFIO_IOMMU_UNMAP_DMA: return 0;
		}
		fprintf(stderr, "fake container: ioctl %lx\n", req); errno = ENOTTY; return -1;
	}
	if (fd >= 0 && fd == group_fd) {
		switch (req) {
		case VFIO_GROUP_GET_STATUS:
			((struct vfio_group_status *)arg)->flags = VFIO_GROUP_FLAGS_VIABLE; return 0;
		case VFIO_GROUP_SET_CONTAINER: return 0;
		case VFIO_GROUP_GET_DEVICE_FD: return dev_fd = dup(dev_master);
		}
		fprintf(stderr, "fake group: ioctl %lx\n", req); errno = ENOTTY; return -1;
	}
	if (fd >= 0 && fd == dev_fd) {
		switch (req) {
		case VFIO_DEVICE_GET_INFO: {
			struct vfio_device_info *i = arg;
			i->flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
			i->num_regions = VFIO_PCI_NUM_REGIONS; i->num_irqs = VFIO_PCI_NUM_IRQS;
			return 0; }
		case VFIO_DEVICE_GET_REGION_INFO: {
			struct vfio_region_info *r = arg;
			r->offset = (uint64_t)r->index << 40; r->size = 0; r->flags = 0;
			if (r->index == 0) {
				r->size = BARSZ;
				r->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP;
			} else if (r->index == VFIO_PCI_CONFIG_REGION_INDEX) {
				r->size = 4096;
				r->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
			}
			return 0; }
		case VFIO_DEVICE_GET_IRQ_INFO: {
			struct vfio_irq_info *q = arg;
			q->flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
			q->count = q->index == VFIO_PCI_MSIX_IRQ_INDEX ? 3 : 1;
			return 0; }
		case VFIO_DEVICE_SET_IRQS: return 0;
		case VFIO_DEVICE_RESET: return 0;
		}
		fprintf(stderr, "fake device: ioctl %lx\n", req); errno = ENOTTY; return -1;
	}
	return real_ioctl(fd, req, arg);
}

/* ---------------------------------------------------------------- set-up */
static void put(const char *dir, const char *name, const char *val)
{
	char p[512]; snprintf(p, sizeof p, "%s/%s", dir, name);
	FILE *f = fopen(p, "w"); if (!f) { perror(p); exit(1); }
	fputs(val, f); fclose(f);
}

static uint32_t rd(uint32_t off) { return *(volatile uint32_t *)(fv.bar + off); }
static void wr(uint32_t off, uint32_t v) { *(volatile uint32_t *)(fv.bar + off) = v; }

void fv_setup(enum fv_kind kind, int flex, const char *base)
{
	char dir[400], p[512], line[256];
	unsigned did = kind == FV_IXGBEVF ? 0x10ed : kind == FV_IAVF ? 0x1889 : 0x10ca;
	fv.kind = kind; fv.flex = flex;
	snprintf(sysfs, sizeof sysfs, "%s", base);
	snprintf(p, sizeof p, "rm -rf '%s'; mkdir -p '%s/devices/" PCIADDR "' '%s/drivers/vfio-pci' '%s/iommu_groups/" GROUPNO "'",
		 base, base, base, base);
	if (system(p)) exit(1);
	snprintf(dir, sizeof dir, "%s/devices/" PCIADDR, base);
	put(dir, "vendor", "0x8086\n");
	snprintf(line, sizeof line, "0x%04x\n", did); put(dir, "device", line);
	put(dir, "subsystem_vendor", "0x8086\n"); put(dir, "subsystem_device", "0x0000\n");
	put(dir, "class", "0x020000\n"); put(dir, "numa_node", "0\n");
	snprintf(p, sizeof p, "%s/resource", dir);
	FILE *f = fopen(p, "w");
	fprintf(f, "0x00000000f0000000 0x%016x 0x000000000014220c\n", 0xf0000000u + BARSZ - 1);
	for (int i = 1; i < 13; i++) fprintf(f, "0x%016x 0x%016x 0x%016x\n", 0, 0, 0);
	fclose(f);
	snprintf(p, sizeof p, "%s/driver", dir);
	if (symlink("../../drivers/vfio-pci", p)) perror("symlink");
	snprintf(p, sizeof p, "%s/iommu_group", dir);
	if (symlink("../../iommu_groups/" GROUPNO, p)) perror("symlink");
	snprintf(p, sizeof p, "%s/devices", base);
	setenv("SYSFS_PCI_DEVICES", p, 1);

	dev_master = memfd_create("fake-vfio-device", 0);
	if (ftruncate(dev_master, (9ull << 40))) { perror("ftruncate"); exit(1); }
	uint8_t cfg[256] = {0};
	cfg[0] = 0x86; cfg[1] = 0x80; cfg[2] = did; cfg[3] = did >> 8; cfg[4] = 0x06;
	cfg[0xb] = 0x02; cfg[0x10] = 0x0c; cfg[0x13] = 0xf0;
	if (pwrite(dev_master, cfg, sizeof cfg, 7ull << 40) != sizeof cfg) { perror("pwrite"); exit(1); }
	fv.bar = mmap(NULL, BARSZ, PROT_READ | PROT_WRITE, MAP_SHARED, dev_master, 0);
	if (fv.bar == MAP_FAILED) { perror("mmap"); exit(1); }

	if (kind == FV_IXGBEVF) {
		wr(0x2fc, 0);  /* VFMAILBOX: RSTD is read-to-clear, memory cannot do that: keep it clear */
		wr(0x10, 0x40000000 | 0x30000000);  /* VFLINKS: up, 10G */
		wr(0x8, 0x00080000);                /* VFSTATUS: GIO master enable */
	} else if (kind == FV_IGBVF) {
		wr(0xc40, 0);
		wr(0x8, 0x2 | 0x1 | 0x80);          /* STATUS: link up, full duplex, 1000 */
	} else {
		wr(0x8800, 2);                      /* VFGEN_RSTAT: VF active */
	}
}

/* ---------------------------------------------------------------- control plane thread */
static const uint8_t mac[6] = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55};

static void mbx_ixgbe(uint32_t mbx, uint32_t mem, int igb)
{
	uint32_t v = rd(mbx);
	if (!(v & 1)) return;                       /* REQ */
	uint32_t m[16];
	for (int i = 0; i < 16; i++) m[i] = rd(mem + 4 * i);
	uint32_t op = m[0] & 0xffff;
	if (fv.verbose) fprintf(stderr, "[dev] mailbox %08x %08x %08x\n", m[0], m[1], m[2]);
	const uint32_t ACK = 0x80000000u, CTS = 0x20000000u;
	if (op == 1) {                              /* RESET */
		m[0] = 1 | ACK; memcpy(&m[1], mac, 6); m[3] = 0;
	} else if (!igb && op == 9) {               /* GET_QUEUES */
		m[0] |= ACK | CTS; m[1] = 1; m[2] = 1; m[3] = 0; m[4] = 0;
	} else {
		m[0] |= ACK | CTS;
	}
	for (int i = 0; i < 16; i++) wr(mem + 4 * i, m[i]);
	wr(mbx, 0x30);                              /* PFSTS | PFACK */
}

/* iavf admin queue */
struct aqd { uint16_t flags, opcode, datalen, retval; uint32_t ck_hi, ck_lo, p0, p1, ah, al; };
#define ATQBAL 0x7c00
#define ATQBAH 0x7800
#define ATQH   0x6400
#define ATQT   0x8400
#define ATQLEN 0x6800
#define ARQBAL 0x6c00
#define ARQBAH 0x6000
#define ARQH   0x7400
#define ARQT   0x7000
#define ARQLEN 0x8000
#define ICR01  0x4800

static void arq_post(uint32_t op, const void *msg, uint32_t len)
{
	uint32_t n = rd(ARQLEN) & 0x3ff, h = rd(ARQH) & 0x3ff;
	struct aqd *r = (void *)((uint64_t)rd(ARQBAH) << 32 | rd(ARQBAL));
	struct aqd *d = &r[h];
	void *buf = (void *)((uint64_t)d->ah << 32 | d->al);
	if (len) memcpy(buf, msg, len);
	d->opcode = 0x0802; d->datalen = len; d->retval = 0;
	d->ck_hi = op; d->ck_lo = 0;
	d->flags = 0x1003;                          /* DD|CMP|BUF */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	wr(ARQH, (h + 1) % n);
	wr(ICR01, 1u << 30);
}

struct vfres { uint16_t nvsi, nqp, maxvec, maxmtu; uint32_t caps, ksz, lsz;
	       uint16_t vsi_id, vqp; int32_t vtype; uint16_t qset; uint8_t mac[6]; };

static void iavf_step(void)
{
	if (!(rd(ATQLEN) >> 31)) return;
	uint32_t n = rd(ATQLEN) & 0x3ff, h = rd(ATQH), t = rd(ATQT);
	if (h == t || !n) return;
	struct aqd *r = (void *)((uint64_t)rd(ATQBAH) << 32 | rd(ATQBAL));
	while (h != t) {
		struct aqd *d = &r[h];
		uint32_t op = d->ck_hi;
		uint8_t *in = d->datalen ? (void *)((uint64_t)d->ah << 32 | d->al) : NULL;
		uint8_t msg[4096]; uint32_t len = 0;
		memset(msg, 0, sizeof msg);
		uint16_t aqop = d->opcode, dl = d->datalen;
		if (fv.verbose) fprintf(stderr, "[dev] atq opcode %04x virtchnl %u len %u\n", aqop, op, dl);
		if (in && aqop == 0x0801) switch (op) {
		case 6: /* CONFIG_VSI_QUEUES */
			/* header 8, then txq info 24, rxq info 48 */
			memcpy(&fv.vfc_txlen, in + 8 + 4, 2); memcpy(&fv.vfc_txring, in + 8 + 8, 8);
			fv.vfc_txlen &= 0xffff;
			memcpy(&fv.vfc_rxlen, in + 8 + 24 + 4, 4); memcpy(&fv.vfc_rxring, in + 8 + 24 + 24, 8);
			break;
		}
		d->flags |= 3; d->retval = 0;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		h = (h + 1) % n; wr(ATQH, h);
		if (aqop != 0x0801) continue;
		switch (op) {
		case 1: { uint32_t v[2] = {1, 1}; memcpy(msg, v, 8); len = 8; break; }  /* VERSION 1.1 */
		case 2: continue;                                                       /* RESET_VF */
		case 3: { /* GET_VF_RESOURCES */
			struct vfres *v = (void *)msg;
			v->nvsi = 1; v->nqp = 1; v->maxvec = 3; v->maxmtu = 0;
			v->caps = 0x1 | 0x10000 /* VLAN */ | 0x20000 /* RX_POLLING */;
			if (fv.flex) v->caps |= 1u << 26; /* RX_FLEX_DESC */
			v->ksz = 52; v->lsz = 64;
			v->vsi_id = 3; v->vqp = 1; v->vtype = 6; memcpy(v->mac, mac, 6);
			len = sizeof *v; break; }
		case 44: { uint64_t ids = 1ull << 1 | 1ull << 22 | 1ull << 16; memcpy(msg, &ids, 8); len = 8; break; } /* GET_SUPPORTED_RXDIDS */
		case 15: len = 128; break; /* GET_STATS */
		}
		arq_post(op, msg, len);
		fv.enabled |= op == 8;
		if (op == 8) { /* ENABLE_QUEUES -> link change event: event 1, severity, speed 10G, up */
			uint32_t ev[4] = {1, 0, 0, 0};
			/* struct virtchnl_pf_event { u32 event; union{ {u32 speed; u8 up}} ; i32 severity } */
			ev[1] = 1 << 3; ev[2] = 1; arq_post(17, ev, 16);
		}
	}
}

/* ---------------------------------------------------------------- the time to the first packet (benches/peer/startup) */
static double start, setup; /* seconds: of the process, since 1970; of our own */

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static int queues_enabled(void)
{
	switch (fv.kind) {
	case FV_IXGBEVF: return rd(0x1028) & rd(0x2028) & 1u << 25; /* VFRXDCTL, VFTXDCTL */
	case FV_IGBVF: return rd(0x2828) & rd(0x3828) & 1u << 25;
	default: return fv.enabled;
	}
}

/* DPDK writes a tail before there are buffers */
static int armed(uint32_t n)
{
	for (uint32_t i = 0, h = fv.rxhead; i < n; i++, h = (h + 1) % fv.nrx)
		if (!*(volatile uint64_t *)(fv.rxring + (size_t)h * fv.rxdsz)) return 0;
	return fv_rx_room() >= n;
}

/* a packet arrives whenever there is room, every 50 us or so (testpmd throws the first ones away); when one is sent, says how long
 * that took and what memory is resident, and ends the process */
static void first_packet(void)
{
	if (!fv.rxring && queues_enabled()) fv_attach_queues();
	if (!fv.rxring) return;
	if (armed(2)) fv_rx_fill(1);
	fv_tx_complete();
	if (!fv.tx_seen) return;
	double took = now() - start - setup;
	char line[256]; long resident = 0;
	FILE *f = fopen("/proc/self/status", "r");
	while (f && fgets(line, sizeof line, f)) sscanf(line, "VmRSS: %ld", &resident);
	fprintf(stderr, "first packet: %.2f ms, resident: %.2f MiB\n", took * 1e3, resident / 1024.0);
	_exit(0);
}

static void (*data_step)(void);

__attribute__((constructor)) static void alone(void)
{
	const char *family = getenv("FAKEVF_FAMILY"), *at = getenv("FAKEVF_START"), *base = getenv("FAKEVF_SYSFS");
	if (!family || !at || !base) return;
	double before = now();
	start = atof(at);
	enum fv_kind kind = !strcmp(family, "ixgbevf") ? FV_IXGBEVF : !strcmp(family, "iavf") ? FV_IAVF : FV_IGBVF;
	unsetenv("LD_PRELOAD"); unsetenv("FAKEVF_FAMILY"); /* what fv_setup runs is not to do this again */
	fv_setup(kind, kind == FV_IAVF, base);
	data_step = first_packet;
	fv_thread_start();
	setup = now() - before;
}

static void *dev_thread(void *a)
{
	(void)a;
	while (fv.run) {
		if (data_step) data_step();
		if (fv.kind == FV_IXGBEVF) {
			if (rd(0) & 0x04000000) wr(0, 0);
			mbx_ixgbe(0x2fc, 0x200, 0);
		} else if (fv.kind == FV_IGBVF) {
			if (rd(0) & 0x04000000) wr(0, 0);
			mbx_ixgbe(0xc40, 0x800, 1);
		} else {
			iavf_step();
		}
		usleep(20);
	}
	return NULL;
}
static pthread_t thr;
void fv_thread_start(void) { fv.run = 1; pthread_create(&thr, NULL, dev_thread, NULL); }
void fv_leave(const char *argument)
{
	if (!strcmp(argument, "llc")) fv.lines = FV_LLC;
	else if (!strcmp(argument, "dram")) fv.lines = FV_DRAM;
}

/* for each line that the device wrote */
static inline void leave(volatile void *line)
{
	/* by hand, so that any compiler for any CPU takes it: others execute it as a NOP, and are not asked for FV_LLC */
	if (fv.lines == FV_LLC) asm volatile(".byte 0x0f, 0x1c, 0x07" : : "D"(line) : "memory"); /* cldemote (%rdi) */
	else if (fv.lines == FV_DRAM) _mm_clflush((void *)line);
}
void fv_thread_stop(void) { fv.run = 0; pthread_join(thr, NULL); wr(ICR01, 0); }

/* ---------------------------------------------------------------- data plane */
void fv_attach_queues(void)
{
	if (fv.kind == FV_IXGBEVF) {
		fv.rxring = (void *)((uint64_t)rd(0x1004) << 32 | rd(0x1000)); fv.nrx = rd(0x1008) / 16;
		fv.txring = (void *)((uint64_t)rd(0x2004) << 32 | rd(0x2000)); fv.ntx = rd(0x2008) / 16;
		fv.rdt = (void *)(fv.bar + 0x1018); fv.tdt = (void *)(fv.bar + 0x2018); fv.rxdsz = 16;
	} else if (fv.kind == FV_IGBVF) {
		fv.rxring = (void *)((uint64_t)rd(0x2804) << 32 | rd(0x2800)); fv.nrx = rd(0x2808) / 16;
		fv.txring = (void *)((uint64_t)rd(0x3804) << 32 | rd(0x3800)); fv.ntx = rd(0x3808) / 16;
		fv.rdt = (void *)(fv.bar + 0x2818); fv.tdt = (void *)(fv.bar + 0x3818); fv.rxdsz = 16;
	} else {
		fv.rxring = (void *)fv.vfc_rxring; fv.nrx = fv.vfc_rxlen;
		fv.txring = (void *)fv.vfc_txring; fv.ntx = fv.vfc_txlen;
		fv.rdt = (void *)(fv.bar + 0x2000); fv.tdt = (void *)(fv.bar + 0x0); fv.rxdsz = 32;
	}
	fv.last_desc = calloc(fv.nrx, sizeof *fv.last_desc);
	fv.last_pkt = calloc(fv.nrx, sizeof *fv.last_pkt);
}

uint32_t fv_rx_room(void) { return (*fv.rdt + fv.nrx - fv.rxhead) % fv.nrx; }

static const uint8_t tmpl[64] = {
	2,0x11,0x22,0x33,0x44,0x55, 2,0xaa,0xbb,0xcc,0xdd,0xee, 8,0,
	0x45,0,0,46, 0,1,0,0, 64,17,0,0, 10,0,0,1, 10,0,0,2, 0x12,0x34,0x43,0x21, 0,26,0,0,
};

void fv_rx_fill(uint32_t n)
{
	uint32_t h = fv.rxhead, m = fv.nrx - 1;
	if (n > fv_rx_room()) { fprintf(stderr, "device: no room: %u > %u\n", n, fv_rx_room()); abort(); }
	for (uint32_t i = 0; i < n; i++, h = (h + 1) & m) {
		volatile uint64_t *d = (volatile uint64_t *)(fv.rxring + (size_t)h * fv.rxdsz);
		uint8_t *p = (uint8_t *)d[0];
		memcpy(p, tmpl, sizeof tmpl);
		*(uint32_t *)(p + 42) = i;           /* vary the payload */
		fv.last_desc[i] = (volatile uint8_t *)d; fv.last_pkt[i] = p;
		if (fv.kind != FV_IAVF) {
			/* pkt_info: IPv4|UDP; no rss.  status DD|EOP, length 60 */
			d[0] = 0x210;
			d[1] = 0x3ull | (60ull << 32);
		} else if (!fv.flex) {
			d[0] = 0;
			if (fv.rxdsz == 32) { d[2] = 0; d[3] = 0; }
			/* DD|EOP, ptype 24 at bit 30, length 60 at bit 38 */
			d[1] = 0x3ull | (24ull << 30) | (60ull << 38);
		} else {
			d[0] = 22ull | (24ull << 16) | (60ull << 32);
			d[2] = 0; d[3] = 0;
			d[1] = 0x3ull;
		}
		leave(d);
		leave(p);
	}
	fv.rxhead = h; fv.last_n = n;
	if (fv.lines != FV_WARM) _mm_mfence();
}

void fv_tx_complete(void)
{
	uint32_t h = fv.txhead, t = *fv.tdt, m = fv.ntx - 1;
	for (; h != t; h = (h + 1) & m) {
		volatile uint64_t *d = (volatile uint64_t *)(fv.txring + (size_t)h * 16);
		uint64_t q1 = d[1];
		if (fv.kind == FV_IAVF) {
			fv.tx_seen++; fv.tx_bytes += (q1 >> 34) & 0x3fff;
			if (q1 & (0x2ull << 4)) d[1] = (q1 & ~0xfull) | 0xf;
		} else {
			/* DTYP 3 = data; 26.07 posts one context descriptor (DTYP 2) when a VF queue starts */
			if (((q1 >> 20) & 0xf) == 3) { fv.tx_seen++; fv.tx_bytes += q1 & 0xffff; }
			if (q1 & 0x08000000) { d[0] = 0; d[1] = 1ull << 32; }
		}
	}
	fv.txhead = h;
}
