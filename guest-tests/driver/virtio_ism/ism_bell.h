/* SPDX-License-Identifier: GPL-2.0 */
/*
 * virtio-ism: bells, doorbells in memory shared with a peer
 */

#ifndef ISM_BELL_H
#define ISM_BELL_H

#include "ism.h"

struct ism_slab;

/* Bell of a DMB this guest owns */
struct ism_bell {
	struct list_head list;
	u8 *byte;
	u32 chunk;
};

/* Bell of the owner of an attached DMB; no bell: doorbell only */
struct ism_ringer {
	u8 *bell;
	__le32 *awake;
};

int ism_bells_init(struct virtio_ism *ism);
void ism_bells_start(struct virtio_ism *ism);
void ism_bells_stop(struct virtio_ism *ism);
void ism_bells_free(struct virtio_ism *ism);
struct ism_slab *ism_slab_get(struct virtio_ism *ism, u64 token, u32 chunk);
void ism_slab_put(struct virtio_ism *ism, struct ism_slab *slab);
void ism_bell_add(struct virtio_ism *ism, struct ism_bell *bell,
		  struct ism_slab *slab, u32 chunk);
void ism_bell_del(struct virtio_ism *ism, struct ism_bell *bell);
void ism_bell_clear(struct virtio_ism *ism, u32 chunk);
void ism_ringer_init(struct ism_ringer *ringer, struct ism_slab *slab,
		     u32 chunk);
void ism_poller_wake(struct virtio_ism *ism);

/**
 * ism_poll_traffic() - note traffic, which makes more of it likely
 * @ism: the device
 *
 * Called for every message, so it reads no clock: the poller does. The first
 * call sets ism->traffic and wakes the poller; further calls do nothing until
 * the poller has run and cleared it.
 *
 * Context: any
 */
static inline void ism_poll_traffic(struct virtio_ism *ism)
{
	if (!READ_ONCE(ism->traffic))
		ism_poller_wake(ism);
}

/* Ring the bell; returns true if the doorbell is needed as well. */
static inline bool ism_ring_bell(struct virtio_ism *ism,
				 const struct ism_ringer *ringer)
{
	if (!ringer->bell)
		return true;
	/*
	 * Data written before is visible before the bell is read. The owner
	 * clears the bell before it reads the data: either the bell is still
	 * set and the owner will see this write, too, or this is a new ring.
	 */
	mb();
	if (READ_ONCE(*ringer->bell)) {
		ism_count(ism, ISM_BELLS_STILL_SET);
		return false;
	}
	WRITE_ONCE(*ringer->bell, 1);
	/* Pairs with the barrier in ism_poll_begin(). */
	mb();
	if (READ_ONCE(*ringer->awake)) {
		ism_count(ism, ISM_BELLS_SEEN);
		return false;
	}
	return true;
}

#endif
