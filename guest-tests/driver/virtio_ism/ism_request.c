// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: writing into the DMBs of peers by requests of the move queue
 *
 * A device in copy mode shares no memory between guests: it copies what a
 * request refers to into the peer's DMB. It executes requests in order, and
 * once it has refused one, refuses all later ones for the same DMB.
 *
 * So a short write is copied into the request and not waited for: the order is
 * kept, and no control message follows a payload that was refused. The client
 * gets an error with a later write. A long write refers to the client's memory,
 * which the client reuses afterwards, and is waited for. The client calls in
 * atomic context, so waiting is polling.
 *
 * Writes without a signal are not notified to the device: nobody looks at the
 * data before a later write signals.
 */

#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/sched/clock.h>
#include <linux/slab.h>

#include "ism_bell.h"

#define ISM_MOVE_SLOTS		64
#define ISM_MOVE_TIMEOUT	(5 * NSEC_PER_SEC)

struct ism_move_head {
	struct virtio_ism_ctrl_hdr hdr;
	struct virtio_ism_move move;
} __packed;

/* A request and its buffers, in one page */
struct ism_move_slot {
	struct ism_move_slot *next;	/* free slots */
	u64 token;
	bool waited;
	bool done;
	int result;

	/* Device-writable */
	u8 status ____cacheline_aligned;

	/* Device-readable */
	struct {
		struct ism_move_head head;
		u8 data[];
	} __packed out ____cacheline_aligned;
};

#define ISM_MOVE_INLINE	(PAGE_SIZE - sizeof(struct ism_move_slot))

static void ism_slot_put(struct virtio_ism *ism, struct ism_move_slot *slot)
{
	slot->next = ism->move_free;
	ism->move_free = slot;
}

/* Take the slots that the device is done with; move_lock held */
static void ism_moves_reap(struct virtio_ism *ism)
{
	struct ism_move_slot *slot;
	unsigned int len;

	while ((slot = virtqueue_get_buf(ism->move_vq, &len))) {
		slot->result = len ? ism_status_to_errno(slot->status) : -EPROTO;
		if (slot->result) {
			ism_count(ism, ISM_MOVES_FAILED);
			ism->moves_failed[ism->move_failures++ %
					  ISM_FAILED_TOKENS] = slot->token;
		}
		slot->done = true;
		if (!slot->waited)
			ism_slot_put(ism, slot);
	}
}

static bool ism_token_failed(struct virtio_ism *ism, u64 token)
{
	unsigned int i;

	for (i = 0; i < min(ism->move_failures, ISM_FAILED_TOKENS); i++) {
		if (ism->moves_failed[i] == token)
			return true;
	}
	return false;
}

/* Give the device time; false if there is no device any more */
static bool ism_moves_poll(struct virtio_ism *ism, u64 end)
{
	if (ism_is_broken(ism))
		return false;
	if (virtqueue_is_broken(ism->move_vq) || local_clock() > end) {
		dev_err(&ism->vdev->dev,
			"no answer to a move, giving up on the device\n");
		ism_set_broken(ism);
		return false;
	}
	cpu_relax();
	ism_moves_reap(ism);
	return true;
}

static void ism_moves_notify(struct virtio_ism *ism)
{
	if (!virtqueue_kick_prepare(ism->move_vq))
		return;
	ism_count(ism, ISM_MOVES_NOTIFIED);
	virtqueue_notify(ism->move_vq);
}

static struct ism_move_slot *ism_slot_get(struct virtio_ism *ism, u64 end)
{
	struct ism_move_slot *slot;

	if (!ism->move_free)
		ism_moves_notify(ism);
	while (!ism->move_free) {
		if (!ism_moves_poll(ism, end))
			return NULL;
	}
	slot = ism->move_free;
	ism->move_free = slot->next;
	return slot;
}

/* Post one request: its data is in the slot, or outside */
static int ism_slot_post(struct virtio_ism *ism, struct ism_move_slot *slot,
			 bool signal, unsigned int offset, const void *outside,
			 unsigned int size, u64 end)
{
	struct scatterlist out, data, in, *sgs[3];
	struct ism_move_head *head = &slot->out.head;
	unsigned int outs = 0;
	int ret;

	head->hdr.class = VIRTIO_ISM_CTRL_PEER;
	head->hdr.cmd = VIRTIO_ISM_CTRL_PEER_MOVE;
	head->move.token = cpu_to_le64(slot->token);
	head->move.offset = cpu_to_le64(offset);
	head->move.flags = cpu_to_le32(signal ? VIRTIO_ISM_MOVE_SIGNAL : 0);
	head->move.index = 0;
	slot->status = VIRTIO_ISM_S_ERR;
	slot->done = false;
	slot->waited = outside;

	sg_init_one(&out, head, sizeof(*head) + (outside ? 0 : size));
	sgs[outs++] = &out;
	if (outside) {
		sg_init_one(&data, outside, size);
		sgs[outs++] = &data;
	}
	sg_init_one(&in, &slot->status, sizeof(slot->status));
	sgs[outs] = &in;

	for (;;) {
		ret = virtqueue_add_sgs(ism->move_vq, sgs, outs, 1, slot,
					GFP_ATOMIC);
		if (ret != -ENOSPC)
			break;
		/* Without indirect descriptors the queue may be full. */
		ism_moves_notify(ism);
		if (!ism_moves_poll(ism, end)) {
			ret = -EIO;
			break;
		}
	}
	if (ret)
		ism_slot_put(ism, slot);
	else
		ism_count(ism, ISM_MOVES_POSTED);
	return ret;
}

static int ism_move_inline(struct virtio_ism *ism, u64 token, bool signal,
			   unsigned int offset, const void *data,
			   unsigned int size, u64 end)
{
	struct ism_move_slot *slot = ism_slot_get(ism, end);

	if (!slot)
		return -EIO;
	slot->token = token;
	memcpy(slot->out.data, data, size);
	return ism_slot_post(ism, slot, signal, offset, NULL, size, end);
}

/* The memory must be one range of physical memory. */
static int ism_move_outside(struct virtio_ism *ism, u64 token, bool signal,
			    unsigned int offset, const void *data,
			    unsigned int size, u64 end)
{
	struct ism_move_slot *slot = ism_slot_get(ism, end);
	int ret;

	if (!slot)
		return -EIO;
	slot->token = token;
	ret = ism_slot_post(ism, slot, signal, offset, data, size, end);
	if (ret)
		return ret;
	ism_moves_notify(ism);
	ism_count(ism, ISM_MOVES_WAITED);
	while (!slot->done) {
		/* The device still has the slot, until it is reset. */
		if (!ism_moves_poll(ism, end))
			return -EIO;
	}
	ret = slot->result;
	ism_slot_put(ism, slot);
	return ret;
}

static bool ism_is_linear(const void *data, unsigned int size)
{
	return virt_addr_valid(data) && virt_addr_valid(data + size - 1);
}

/**
 * ism_move_by_request() - write into a peer's DMB, and notify its owner
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
int ism_move_by_request(struct virtio_ism *ism, u64 token, bool signal,
			unsigned int offset, const void *data,
			unsigned int size)
{
	unsigned int part;
	int ret;
	u64 end;

	if (ism_is_broken(ism))
		return -EIO;

	spin_lock_bh(&ism->move_lock);
	end = local_clock() + ISM_MOVE_TIMEOUT;
	ism_moves_reap(ism);
	ret = -EIO;
	if (ism_token_failed(ism, token))
		goto out;

	ism_count_add(ism, ISM_BYTES_MOVED, size);
	if (size > ISM_MOVE_INLINE && ism_is_linear(data, size)) {
		ret = ism_move_outside(ism, token, signal, offset, data, size,
				       end);
		goto out;
	}
	do {
		part = min_t(unsigned int, size, ISM_MOVE_INLINE);
		ret = ism_move_inline(ism, token, signal && part == size,
				      offset, data, part, end);
		offset += part;
		data += part;
		size -= part;
	} while (size && !ret);
	if (!ret && signal)
		ism_moves_notify(ism);
out:
	spin_unlock_bh(&ism->move_lock);
	/* Most traffic gets an answer. */
	if (!ret && signal)
		ism_poll_traffic(ism);
	return ret;
}

static void ism_slots_free(struct virtio_ism *ism)
{
	unsigned int i;

	if (!ism->move_slots)
		return;
	for (i = 0; i < ISM_MOVE_SLOTS; i++)
		kfree(ism->move_slots[i]);
	kfree(ism->move_slots);
	ism->move_slots = NULL;
	ism->move_free = NULL;
}

int ism_moves_init(struct virtio_ism *ism)
{
	unsigned int i;

	spin_lock_init(&ism->move_lock);
	if (!ism_moves_by_request(ism))
		return 0;
	ism->move_slots = kcalloc(ISM_MOVE_SLOTS, sizeof(*ism->move_slots),
				  GFP_KERNEL);
	if (!ism->move_slots)
		return -ENOMEM;
	for (i = 0; i < ISM_MOVE_SLOTS; i++) {
		ism->move_slots[i] = kzalloc(PAGE_SIZE, GFP_KERNEL);
		if (!ism->move_slots[i]) {
			ism_slots_free(ism);
			return -ENOMEM;
		}
		ism_slot_put(ism, ism->move_slots[i]);
	}
	return 0;
}

/* After the reset: the device no longer reads or writes requests. */
void ism_moves_free(struct virtio_ism *ism)
{
	if (ism->move_vq) {
		while (virtqueue_detach_unused_buf(ism->move_vq))
			;
		ism->move_vq = NULL;
	}
	ism_slots_free(ism);
}
