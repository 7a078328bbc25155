// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: writing into the DMBs of peers
 */

#include <linux/unaligned.h>

#include "ism_attachment.h"

/* Largest copy by words; the client's control message has 32 bytes. */
#define ISM_WORDS_MAX		64

/*
 * The receiver may read the two cursors of the control message at any time, as
 * two aligned 8-byte words, the producer's first: write whole words, in
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

		/* Earlier words become visible first. */
		virt_store_release((u64 *)(to + i), word);
	}
}

/* For an owner that does not poll its bells */
static noinline int ism_ring_doorbell(struct virtio_ism *ism, u32 chunk)
{
	u8 *bytes = ism->doorbell + VIRTIO_ISM_DOORBELL_BYTES;
	__le32 *awake = (__le32 *)(ism->doorbell + VIRTIO_ISM_DOORBELL_AWAKE);

	/* Data for the receiver is visible before the doorbell byte. */
	virt_wmb();
	WRITE_ONCE(bytes[chunk], 1);
	ism_count(ism, ISM_DOORBELLS_RUNG);

	/*
	 * The doorbell byte is visible before the awake word is read. The
	 * device clears the word before it reads the bytes a last time: one of
	 * the two sees the other.
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
 * Runs once per message of the client, hence inlined: calls dominate the cost,
 * above all under software emulation.
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
		virt_wmb();	/* payload before the control message */
	ism_copy(att->addr + offset, data, size);
	ism_count_add(ism, ISM_BYTES_MOVED, size);
	if (!signal)
		return 0;
	/* Most traffic gets an answer. */
	ism_poll_traffic(ism);
	if (!ism_ring_bell(ism, &att->ringer))
		return 0;
	return ism_ring_doorbell(ism, att->chunk);
}

/* attachment.lock held, or state is still ISM_ATTACHING */
int ism_write_now(struct virtio_ism *ism, struct ism_attachment *att,
		  bool signal, unsigned int offset, const void *data,
		  unsigned int size)
{
	return ism_write(ism, att, signal, offset, data, size);
}

/* In copy mode the first write creates the attachment. */
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
				/* Just removed from the table */
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
 * ism_move() - write into a peer's DMB, and notify its owner
 * @ism: the device
 * @token: token of the DMB
 * @signal: notify the owner
 * @offset: offset within the DMB
 * @data: bytes to write
 * @size: number of bytes, may be 0
 *
 * Context: atomic
 * Return: 0, or a negative errno, on which the client ends the connection
 */
int ism_move(struct virtio_ism *ism, u64 token, bool signal,
	     unsigned int offset, const void *data, unsigned int size)
{
	struct ism_attachment *att;
	int ret = -EINVAL;

	if (ism_moves_by_request(ism))
		return ism_move_by_request(ism, token, signal, offset, data,
					   size);
	if (ism->copy)
		return ism_move_copying(ism, token, signal, offset, data, size);
	if (ism_is_broken(ism))
		return -EIO;

	/* An attachment found here stays attached: see ism_detach(). */
	rcu_read_lock();
	att = ism_attachment_find(ism, token);
	if (att)
		ret = ism_write(ism, att, signal, offset, data, size);
	rcu_read_unlock();
	return ret;
}
