// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: writing into the DMBs of peers
 */

#include <linux/unaligned.h>

#include "ism_attachment.h"

/* The client's control message has 32 bytes. */
#define ISM_WORDS_MAX		64

/*
 * The receiver reads the two cursors of the control message as two aligned
 * 8-byte words, at any time, the producer's first: so write whole words, in
 * ascending order.
 */
static __always_inline void ism_copy(u8 *to, const void *from,
				     unsigned int size)
{
	unsigned int i;

	if (size > ISM_WORDS_MAX || !IS_ALIGNED((uintptr_t)to | size, 8)) {
		memcpy(to, from, size);
		return;
	}
	for (i = 0; i < size; i += 8) {
		u64 word = get_unaligned((const u64 *)(from + i));

		/* The words before this one are visible first. */
		virt_store_release((u64 *)(to + i), word);
	}
}

/* The owner does not look at its bells. */
static noinline int ism_ring_doorbell(struct virtio_ism *ism, u32 chunk)
{
	u8 *bytes = ism->doorbell + VIRTIO_ISM_DOORBELL_BYTES;
	__le32 *awake = (__le32 *)(ism->doorbell + VIRTIO_ISM_DOORBELL_AWAKE);

	/* What the receiver will look at is visible before the ring. */
	virt_wmb();
	WRITE_ONCE(bytes[chunk], 1);
	ism_count(ism, ISM_DOORBELLS_RUNG);

	/*
	 * The ring is visible before the look at the word. The device clears
	 * the word before its last look at the bytes: one of both sees the
	 * other.
	 */
	mb();
	if ((ism->config.features & VIRTIO_ISM_FEATURE_AWAKE) &&
	    READ_ONCE(*awake)) {
		ism_count(ism, ISM_DOORBELLS_SKIPPED);
		return 0;
	}
	ism_count(ism, ISM_DOORBELLS_NOTIFIED);
	if (!virtqueue_notify(ism->doorbell_vq)) {
		ism_set_broken(ism);
		return -EIO;
	}
	return 0;
}

/*
 * Once per message of the client, so all in one piece: calls are what is dear
 * here, above all under software emulation.
 */
static __always_inline int ism_write(struct virtio_ism *ism,
				     struct ism_attachment *att, bool signal,
				     unsigned int offset, const void *data,
				     unsigned int size)
{
	if (offset > att->len || size > att->len - offset)
		return -EINVAL;
	/* The client may have written payload itself, through the mapping. */
	if (signal)
		virt_wmb();	/* Payload first, the control message after it */
	ism_copy(att->addr + offset, data, size);
	ism_count_add(ism, ISM_BYTES_MOVED, size);
	if (!signal)
		return 0;
	/* Most traffic is answered. */
	ism_poll_traffic(ism);
	if (!ism_ring_bell(ism, &att->ringer))
		return 0;
	return ism_ring_doorbell(ism, att->chunk);
}

/* attachment.lock held, or not attached yet for others */
int ism_write_now(struct virtio_ism *ism, struct ism_attachment *att,
		  bool signal, unsigned int offset, const void *data,
		  unsigned int size)
{
	return ism_write(ism, att, signal, offset, data, size);
}

/* In copy mode an attachment may have to be made first. */
static noinline int ism_move_copying(struct virtio_ism *ism, u64 token, bool signal,
			    unsigned int offset, const void *data,
			    unsigned int size)
{
	struct ism_attachment *att;
	int ret;

	do {
		if (ism_is_broken(ism))
			return -EIO;

		rcu_read_lock();
		att = ism_attachment_find(ism, token);
		if (att) {
			spin_lock_bh(&att->lock);
			att->last_use = jiffies;
			switch (att->state) {
			case ISM_ATTACHED:
				ret = ism_write_now(ism, att, signal, offset,
						    data, size);
				break;
			case ISM_ATTACHING:
				ret = ism_queue_write(ism, att, signal, offset,
						      data, size);
				break;
			case ISM_DETACHED:
				/* Just taken out of the table. */
				ret = -EAGAIN;
				break;
			default:
				ret = -EIO;
				break;
			}
			spin_unlock_bh(&att->lock);
		} else {
			ret = ism_queue_first_write(ism, token, signal, offset,
						    data, size);
		}
		rcu_read_unlock();
	} while (ret == -EAGAIN);

	return ret;
}

/**
 * ism_move() - write into a peer's DMB, and ring its owner
 * @ism: the device
 * @token: the DMB
 * @signal: ring
 * @offset: offset within the DMB
 * @data: what to write
 * @size: how much of it, may be 0
 *
 * Context: atomic
 * Return: 0, or a negative errno, which ends the connection
 */
int ism_move(struct virtio_ism *ism, u64 token, bool signal,
	     unsigned int offset, const void *data, unsigned int size)
{
	struct ism_attachment *att;
	int ret = -EINVAL;

	if (ism->copy)
		return ism_move_copying(ism, token, signal, offset, data, size);
	if (ism_is_broken(ism))
		return -EIO;

	/* What is found here is attached, and stays so: see ism_detach(). */
	rcu_read_lock();
	att = ism_attachment_find(ism, token);
	if (att)
		ret = ism_write(ism, att, signal, offset, data, size);
	rcu_read_unlock();
	return ret;
}
