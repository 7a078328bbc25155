// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: copy mode
 *
 * In copy mode the client calls only move_data(), in atomic context, while
 * attaching is a command that has to sleep for its reply. So the first write
 * to an unknown token creates an attachment, is queued there and reported as
 * done; a work item attaches and then writes the queue out. Later writes are
 * appended as long as the queue is not empty, which keeps the order. The queue
 * cannot grow beyond what the client sends without a reply of the peer, which
 * is one DMB and some control messages; it is bounded all the same. While the
 * device has no room, attaching is retried: to the client this looks like a
 * peer that does not read. If attaching fails for another reason, the next
 * write fails, and the client ends the connection.
 *
 * Nothing signals that a copy mode attachment is no longer needed, and keeping
 * it prevents the reuse of the owner's memory. So it is detached when unused
 * for a while, and attached again by the next write.
 */

#include <linux/slab.h>

#include "ism_attachment.h"

#define ISM_IDLE_TIME		(30 * HZ)
#define ISM_IDLE_INTERVAL	(10 * HZ)

/* Interval between attempts to attach while the device has no room */
#define ISM_STARVED_RETRY	(HZ / 10)

/* A queued write */
struct ism_write {
	struct list_head list;
	unsigned int offset;
	unsigned int size;
	bool signal;
	u8 data[];
};

#define ISM_WRITE_MAX	(PAGE_SIZE - sizeof(struct ism_write))

static void ism_writes_free(struct virtio_ism *ism, struct list_head *queue)
{
	struct ism_write *write, *next;

	list_for_each_entry_safe(write, next, queue, list) {
		ism_count(ism, ISM_WRITES_DROPPED);
		kfree(write);
	}
}

/* attachment.lock held */
int ism_queue_write(struct virtio_ism *ism, struct ism_attachment *att,
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
			ism_writes_free(ism, &queue);
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
		/* Make room, but spare attachments in use. */
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
		ism_writes_free(ism, &queue);
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

int ism_queue_first_write(struct virtio_ism *ism, u64 token, bool signal,
			  unsigned int offset, const void *data,
			  unsigned int size)
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
	ism_writes_free(ism, &att->queue);
	kfree(att);
	return ret;
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

void ism_queue_init(struct virtio_ism *ism)
{
	INIT_DELAYED_WORK(&ism->idle_work, ism_idle_work);
	INIT_LIST_HEAD(&ism->starved);
	INIT_DELAYED_WORK(&ism->starved_work, ism_starved_work);
	if (ism->copy)
		queue_delayed_work(ism->wq, &ism->idle_work, ISM_IDLE_INTERVAL);
}

/* Before the reset; there are no more writers */
void ism_queue_drain(struct virtio_ism *ism)
{
	cancel_delayed_work_sync(&ism->idle_work);
	mutex_lock(&ism->map_lock);
	ism->draining = true;
	mutex_unlock(&ism->map_lock);
	/* Attachments without room give up now. */
	mod_delayed_work(ism->wq, &ism->starved_work, 0);
	flush_delayed_work(&ism->starved_work);
	flush_workqueue(ism->wq);
}
