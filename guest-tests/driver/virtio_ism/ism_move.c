// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: writing into the DMBs of peers
 *
 * A peer's DMB must be attached before this guest can write it. In the default
 * mode the client attaches it (attach_dmb()), fills it through the mapping and
 * calls move_data() for its small control message only.
 *
 * In copy mode the client calls nothing but move_data(), in atomic context,
 * while attaching is a command whose answer takes a sleep. So the first write
 * to an unknown token creates an attachment, is put into its queue and counts
 * as done; a work item attaches and then writes the queue out. Later writes go
 * behind it as long as the queue is not empty, so the order is kept. The queue
 * cannot grow beyond what the client sends without an answer of the peer,
 * which is one DMB and some control messages; it is bounded all the same. While
 * the device has no room, this is tried again: to the client it looks like a
 * peer that does not read. If attaching fails for another reason, the next
 * write fails, and the client ends the connection.
 *
 * Nobody tells when a copy mode attachment is no longer needed, and one that
 * is kept stops the owner's memory from being reused. So it is detached when
 * it was not used for a while, and attached again by the next write.
 */

#include <linux/rculist.h>
#include <linux/slab.h>
#include <linux/unaligned.h>

#include "ism.h"

#define ISM_IDLE_TIME		(30 * HZ)
#define ISM_IDLE_INTERVAL	(10 * HZ)

/* Between two attempts to attach while the device has no room */
#define ISM_STARVED_RETRY	(HZ / 10)

/* The client's control message has 32 bytes. */
#define ISM_WORDS_MAX		64

enum ism_attachment_state {
	ISM_ATTACHING,		/* copy mode: writes are queued */
	ISM_ATTACHED,
	ISM_ATTACH_FAILED,
	ISM_DETACHED,		/* no longer in the table */
};

struct ism_attachment {
	struct hlist_node node;
	struct rcu_head rcu;
	u64 token;
	unsigned int users;	/* map_lock; not in copy mode */

	spinlock_t lock;	/* all below, against a detach */
	enum ism_attachment_state state;
	u32 chunk;
	u32 len;
	u8 *addr;
	struct ism_slab *slab;
	struct ism_ringer ringer;

	/* Copy mode */
	struct virtio_ism *ism;
	struct work_struct work;
	struct list_head queue;
	size_t queued;
	unsigned long last_use;
	struct list_head idle;
	struct list_head starved;
};

/* A queued write */
struct ism_write {
	struct list_head list;
	unsigned int offset;
	unsigned int size;
	bool signal;
	u8 data[];
};

#define ISM_WRITE_MAX	(PAGE_SIZE - sizeof(struct ism_write))

static struct ism_attachment *ism_attachment_find(struct virtio_ism *ism,
						  u64 token)
{
	struct ism_attachment *att;

	hash_for_each_possible_rcu(ism->attachments, att, node, token,
				   lockdep_is_held(&ism->attach_lock)) {
		if (att->token == token)
			return att;
	}
	return NULL;
}

/* attach_lock held; fails when the table has all the device allows */
static bool ism_attachment_insert(struct virtio_ism *ism,
				  struct ism_attachment *att)
{
	if (ism->attachment_count >= ism->config.max_dmbs)
		return false;
	ism->attachment_count++;
	hash_add_rcu(ism->attachments, &att->node, att->token);
	return true;
}

/* attach_lock held; free with kfree_rcu() */
static void ism_attachment_remove(struct virtio_ism *ism,
				  struct ism_attachment *att)
{
	spin_lock(&att->lock);
	att->state = ISM_DETACHED;
	spin_unlock(&att->lock);
	hash_del_rcu(&att->node);
	ism->attachment_count--;
}

static struct ism_attachment *ism_attachment_alloc(struct virtio_ism *ism,
						   u64 token, gfp_t gfp)
{
	struct ism_attachment *att = kzalloc_obj(*att, gfp);

	if (!att)
		return NULL;
	att->ism = ism;
	att->token = token;
	att->last_use = jiffies;
	spin_lock_init(&att->lock);
	INIT_LIST_HEAD(&att->queue);
	return att;
}

/* Ask the device; fills in where the DMB is */
static int ism_attachment_map(struct virtio_ism *ism,
			      struct ism_attachment *att)
{
	struct virtio_ism_attach command = {
		.token = cpu_to_le64(att->token),
		.rw_perm = cpu_to_le32(VIRTIO_ISM_PERM_READ |
				       VIRTIO_ISM_PERM_WRITE),
	};
	struct virtio_ism_attach_reply reply;
	int ret;

	lockdep_assert_held(&ism->map_lock);

	ret = ism_control(ism, VIRTIO_ISM_CTRL_ATTACH, 0,
			  &command, sizeof(command), &reply, sizeof(reply));
	if (ret)
		return ret;
	ret = -EPROTO;
	if (le64_to_cpu(reply.num) == 1)
		ret = ism_area_claim(ism, &reply.area, &att->chunk, &att->len);
	if (ret) {
		ism_detach_token(ism, att->token);
		return ret;
	}
	att->slab = ism_slab_get(ism, att->token, att->chunk);
	if (IS_ERR(att->slab)) {
		ret = PTR_ERR(att->slab);
		ism_detach_token(ism, att->token);
		ism_area_release(ism, att->chunk, att->len);
		return ret;
	}
	ism_ringer_init(&att->ringer, att->slab, att->chunk);
	att->addr = ism->window->addr +
		    (u64)att->chunk * ism->config.chunk_size;
	return 0;
}

static int ism_attachment_unmap(struct virtio_ism *ism,
				struct ism_attachment *att)
{
	int ret;

	lockdep_assert_held(&ism->map_lock);

	ism_slab_put(ism, att->slab);
	ret = ism_detach_token(ism, att->token);
	ism_area_release(ism, att->chunk, att->len);
	return ret;
}

/*
 * attach_dmb() and detach_dmb(): the client may attach the DMB for a new
 * connection before the previous one that used it has let go, but the device
 * takes a token once only. Hence the count of users.
 */

int ism_attach(struct virtio_ism *ism, struct dibs_dmb *dmb)
{
	struct ism_attachment *att;
	bool inserted;
	int ret = 0;

	mutex_lock(&ism->map_lock);
	rcu_read_lock();
	att = ism_attachment_find(ism, dmb->dmb_tok);
	rcu_read_unlock();
	/* Still there: map_lock keeps everybody from removing it. */
	if (att) {
		att->users++;
		goto found;
	}

	att = ism_attachment_alloc(ism, dmb->dmb_tok, GFP_KERNEL);
	if (!att) {
		ret = -ENOMEM;
		goto out;
	}
	ret = ism_attachment_map(ism, att);
	if (ret) {
		kfree(att);
		goto out;
	}
	att->users = 1;
	att->state = ISM_ATTACHED;
	spin_lock_bh(&ism->attach_lock);
	inserted = ism_attachment_insert(ism, att);
	spin_unlock_bh(&ism->attach_lock);
	if (!inserted) {
		ism_attachment_unmap(ism, att);
		kfree(att);
		ret = -ENOSPC;
		goto out;
	}
found:
	dmb->cpu_addr = att->addr;
	dmb->dma_addr = ISM_DMA_ADDR_NONE;
	dmb->dmb_len = att->len;
	dmb->idx = att->chunk;
out:
	mutex_unlock(&ism->map_lock);
	return ret;
}

int ism_detach(struct virtio_ism *ism, u64 token)
{
	struct ism_attachment *att;
	int ret = 0;

	mutex_lock(&ism->map_lock);
	spin_lock_bh(&ism->attach_lock);
	att = ism_attachment_find(ism, token);
	if (!att || !att->users) {
		att = NULL;
		ret = -EINVAL;
	} else if (--att->users) {
		att = NULL;
	} else {
		ism_attachment_remove(ism, att);
	}
	spin_unlock_bh(&ism->attach_lock);

	if (att) {
		ret = ism_attachment_unmap(ism, att);
		kfree_rcu(att, rcu);
	}
	mutex_unlock(&ism->map_lock);
	return ret;
}

/* Writing */

/*
 * The receiver reads the two cursors of the control message as two aligned
 * 8-byte words, at any time, the producer's first: so write whole words, in
 * ascending order.
 */
static void ism_copy(u8 *to, const void *from, unsigned int size)
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

static int ism_ring(struct virtio_ism *ism, const struct ism_ringer *ringer,
		    u32 chunk)
{
	u8 *bytes = ism->doorbell + VIRTIO_ISM_DOORBELL_BYTES;
	__le32 *awake = (__le32 *)(ism->doorbell + VIRTIO_ISM_DOORBELL_AWAKE);

	/* Most traffic is answered. */
	ism_poll_traffic(ism);
	if (!ism_ring_bell(ism, ringer))
		return 0;

	/* What the receiver will look at is visible before the ring. */
	virt_wmb();
	WRITE_ONCE(bytes[chunk], 1);
	ism_count(ism, ISM_DOORBELLS_RUNG);

	/*
	 * The ring is visible before the look at the word. The device clears
	 * the word before its last look at the bytes: one of both sees the
	 * other.
	 */
	virt_mb();
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

static int ism_write_now(struct virtio_ism *ism, struct ism_attachment *att,
			 bool signal, unsigned int offset, const void *data,
			 unsigned int size)
{
	if (offset > att->len || size > att->len - offset)
		return -EINVAL;
	/* The client may have written payload itself, through the mapping. */
	if (signal)
		virt_wmb();	/* Payload first, the control message after it */
	ism_copy(att->addr + offset, data, size);
	ism_count_add(ism, ISM_BYTES_MOVED, size);
	return signal ? ism_ring(ism, &att->ringer, att->chunk) : 0;
}

/* Copy mode */

static void ism_queue_free(struct virtio_ism *ism, struct list_head *queue)
{
	struct ism_write *write, *next;

	list_for_each_entry_safe(write, next, queue, list) {
		ism_count(ism, ISM_WRITES_DROPPED);
		kfree(write);
	}
}

/* attachment.lock held */
static int ism_queue_write(struct virtio_ism *ism, struct ism_attachment *att,
			   bool signal, unsigned int offset, const void *data,
			   unsigned int size)
{
	LIST_HEAD(queue);
	struct ism_write *write;
	size_t total = 0;

	if (size > 2 * ism->config.max_dmb_size - att->queued)
		return -ENOBUFS;
	do {
		unsigned int part = min(size, ISM_WRITE_MAX);

		write = kmalloc_flex(*write, data, part,
				     GFP_ATOMIC | __GFP_NOWARN);
		if (!write) {
			ism_queue_free(ism, &queue);
			return -ENOMEM;
		}
		write->offset = offset;
		write->size = part;
		write->signal = signal && part == size;
		memcpy(write->data, data, part);
		list_add_tail(&write->list, &queue);
		ism_count(ism, ISM_WRITES_QUEUED);
		offset += part;
		data += part;
		size -= part;
		total += part;
	} while (size);

	list_splice_tail(&queue, &att->queue);
	att->queued += total;
	return 0;
}

static void ism_idle_detach(struct virtio_ism *ism, unsigned long idle_time);

static void ism_attachment_work(struct work_struct *work)
{
	struct ism_attachment *att = container_of(work, struct ism_attachment,
						  work);
	struct virtio_ism *ism = att->ism;
	struct ism_write *write, *next;
	LIST_HEAD(queue);
	int ret;

	mutex_lock(&ism->map_lock);
	ret = ism_attachment_map(ism, att);
	if (ret == -ENOSPC) {
		/* Make room, but leave alone what is in use. */
		ism_idle_detach(ism, HZ);
		ret = ism_attachment_map(ism, att);
	}
	if ((ret == -ENOSPC || ret == -ENOMEM) && !ism->draining) {
		list_add_tail(&att->starved, &ism->starved);
		queue_delayed_work(ism->wq, &ism->starved_work,
				   ISM_STARVED_RETRY);
		mutex_unlock(&ism->map_lock);
		return;
	}
	mutex_unlock(&ism->map_lock);

	for (;;) {
		spin_lock_bh(&att->lock);
		list_splice_init(&att->queue, &queue);
		att->queued = 0;
		att->last_use = jiffies;
		if (ret)
			att->state = ISM_ATTACH_FAILED;
		else if (list_empty(&queue))
			att->state = ISM_ATTACHED;
		spin_unlock_bh(&att->lock);
		if (ret || list_empty(&queue))
			break;

		list_for_each_entry_safe(write, next, &queue, list) {
			ret = ism_write_now(ism, att, write->signal,
					    write->offset, write->data,
					    write->size);
			if (ret)
				break;
			list_del(&write->list);
			kfree(write);
		}
	}

	if (ret) {
		ism_queue_free(ism, &queue);
		dev_warn_ratelimited(&ism->vdev->dev,
				     "cannot write to a peer's DMB: %d\n", ret);
	}
}

static void ism_starved_work(struct work_struct *work)
{
	struct virtio_ism *ism = container_of(to_delayed_work(work),
					      struct virtio_ism, starved_work);
	struct ism_attachment *att, *next;

	mutex_lock(&ism->map_lock);
	list_for_each_entry_safe(att, next, &ism->starved, starved) {
		list_del(&att->starved);
		queue_work(ism->wq, &att->work);
	}
	mutex_unlock(&ism->map_lock);
}

static int ism_queue_first_write(struct virtio_ism *ism, u64 token,
				 bool signal, unsigned int offset,
				 const void *data, unsigned int size)
{
	struct ism_attachment *att;
	int ret;

	att = ism_attachment_alloc(ism, token, GFP_ATOMIC | __GFP_NOWARN);
	if (!att)
		return -ENOMEM;
	INIT_WORK(&att->work, ism_attachment_work);
	att->state = ISM_ATTACHING;

	ret = ism_queue_write(ism, att, signal, offset, data, size);
	if (ret)
		goto free;
	spin_lock_bh(&ism->attach_lock);
	if (ism_attachment_find(ism, token))
		ret = -EAGAIN;
	else if (!ism_attachment_insert(ism, att))
		ret = -ENOSPC;
	spin_unlock_bh(&ism->attach_lock);
	if (ret)
		goto free;

	queue_work(ism->wq, &att->work);
	return 0;
free:
	ism_queue_free(ism, &att->queue);
	kfree(att);
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
				ret = ism->copy ? -EAGAIN : -EINVAL;
				break;
			default:
				ret = -EIO;
				break;
			}
			spin_unlock_bh(&att->lock);
		} else if (ism->copy) {
			ret = ism_queue_first_write(ism, token, signal, offset,
						    data, size);
		} else {
			ret = -EINVAL;
		}
		rcu_read_unlock();
	} while (ret == -EAGAIN);

	return ret;
}

static void ism_idle_detach(struct virtio_ism *ism, unsigned long idle_time)
{
	struct ism_attachment *att, *next;
	struct hlist_node *tmp;
	LIST_HEAD(idle);
	int bucket;

	lockdep_assert_held(&ism->map_lock);

	spin_lock_bh(&ism->attach_lock);
	hash_for_each_safe(ism->attachments, bucket, tmp, att, node) {
		spin_lock(&att->lock);
		if (att->state != ISM_ATTACHING &&
		    time_after(jiffies, att->last_use + idle_time))
			list_add(&att->idle, &idle);
		spin_unlock(&att->lock);
	}
	spin_unlock_bh(&ism->attach_lock);

	list_for_each_entry_safe(att, next, &idle, idle) {
		spin_lock_bh(&ism->attach_lock);
		ism_attachment_remove(ism, att);
		spin_unlock_bh(&ism->attach_lock);
		if (att->addr)
			ism_attachment_unmap(ism, att);
		kfree_rcu(att, rcu);
	}
}

static void ism_idle_work(struct work_struct *work)
{
	struct virtio_ism *ism = container_of(to_delayed_work(work),
					      struct virtio_ism, idle_work);

	mutex_lock(&ism->map_lock);
	ism_idle_detach(ism, ISM_IDLE_TIME);
	mutex_unlock(&ism->map_lock);
	queue_delayed_work(ism->wq, &ism->idle_work, ISM_IDLE_INTERVAL);
}

void ism_move_init(struct virtio_ism *ism)
{
	spin_lock_init(&ism->attach_lock);
	hash_init(ism->attachments);
	INIT_DELAYED_WORK(&ism->idle_work, ism_idle_work);
	INIT_LIST_HEAD(&ism->starved);
	INIT_DELAYED_WORK(&ism->starved_work, ism_starved_work);
	if (ism->copy)
		queue_delayed_work(ism->wq, &ism->idle_work, ISM_IDLE_INTERVAL);
}

/* Before the reset, when nobody writes any more */
void ism_move_drain(struct virtio_ism *ism)
{
	cancel_delayed_work_sync(&ism->idle_work);
	mutex_lock(&ism->map_lock);
	ism->draining = true;
	mutex_unlock(&ism->map_lock);
	/* Those that found no room now give up. */
	mod_delayed_work(ism->wq, &ism->starved_work, 0);
	flush_delayed_work(&ism->starved_work);
	flush_workqueue(ism->wq);
}

/* After the reset, which ended every attachment */
void ism_move_free(struct virtio_ism *ism)
{
	struct ism_attachment *att;
	struct hlist_node *tmp;
	int bucket;

	hash_for_each_safe(ism->attachments, bucket, tmp, att, node) {
		hash_del(&att->node);
		kfree(att);
	}
}
