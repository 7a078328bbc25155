// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: bells, and polling them
 *
 * A doorbell of the device costs a trapped write, a run of the daemon and an
 * interrupt. Two busy guests avoid it: the writer sets a byte in the slab they
 * share, the bell, and the owner, if idle otherwise, polls it. The doorbell is
 * only needed for an owner that does not poll.
 *
 * A thread of the lowest priority polls, for a short time after the last sign
 * of traffic. It polls with preemption off and advertises that in its awake
 * words. When something else is runnable it yields the processor.
 *
 * That something is mostly the program the bell was rung for, and the thread
 * runs again as soon as that program blocks. The peer keeps writing meanwhile,
 * and would ring the doorbell once per such turn. So a thread whose recent
 * absences were short stays marked awake while it is away, and a timer polls in
 * its place in case it does not return this time. Otherwise the thread marks
 * itself asleep, and polls once more.
 */

#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched/clock.h>
#include <linux/sched/task.h>
#include <linux/slab.h>

#include "ism_bell.h"

static unsigned int poll_us = 200;
module_param(poll_us, uint, 0644);
MODULE_PARM_DESC(poll_us,
		 "Microseconds to poll for the peer after the last traffic, 0 for interrupts only");

/* Bells collected per pass of ism_look() */
#define ISM_LOOK_MAX		16

/*
 * A thread that came back within this time, this many times in a row, is
 * expected to do so again.
 */
#define ISM_SOON_NS		(500 * NSEC_PER_USEC)
#define ISM_SOON_TIMES		2

/* Maximum delay of a ring if the thread does not come back after all */
#define ISM_GUARD_NS		NSEC_PER_MSEC

/*
 * A slab this guest shares with a peer, valid as long as a DMB in it is owned or
 * attached; after that the device may remove it from the window.
 */
struct ism_slab {
	struct list_head list;
	unsigned int users;		/* map_lock */
	u32 first;			/* chunk in the window */
	u32 chunks;
	u32 side;
	u8 *addr;
};

static struct virtio_ism_slab_side *ism_slab_side(struct ism_slab *slab,
						  u32 side)
{
	return (struct virtio_ism_slab_side *)slab->addr + side;
}

static u8 *ism_slab_bell(struct ism_slab *slab, u32 chunk)
{
	return slab->addr + VIRTIO_ISM_SLAB_BELLS + (chunk - slab->first);
}

/* bell_lock held */
static void ism_slab_set_awake(struct ism_slab *slab, bool awake)
{
	WRITE_ONCE(ism_slab_side(slab, slab->side)->awake,
		   cpu_to_le32(awake));
}

static struct ism_slab *ism_slab_find(struct virtio_ism *ism, u32 chunk)
{
	struct ism_slab *slab;

	lockdep_assert_held(&ism->map_lock);

	list_for_each_entry(slab, &ism->slabs, list) {
		if (chunk >= slab->first &&
		    chunk - slab->first < slab->chunks)
			return slab;
	}
	return NULL;
}

/* Query the slab of a DMB from the device, and validate the reply. */
static struct ism_slab *ism_slab_query(struct virtio_ism *ism, u64 token,
				       u32 chunk)
{
	struct virtio_ism_query_slab command = {
		.token = cpu_to_le64(token),
	};
	const struct ism_config *config = &ism->config;
	struct virtio_ism_slab_reply reply;
	struct ism_slab *slab;
	u64 offset, size;
	u32 side;
	int ret;

	ret = ism_control(ism, VIRTIO_ISM_CTRL_PEER,
			  VIRTIO_ISM_CTRL_PEER_QUERY_SLAB,
			  &command, sizeof(command), &reply, sizeof(reply));
	if (ret)
		return ERR_PTR(ret);

	offset = le64_to_cpu(reply.area.offset);
	size = le64_to_cpu(reply.area.size);
	side = le32_to_cpu(reply.side);
	if (side > 1 || !IS_ALIGNED(offset | size, config->chunk_size) ||
	    offset >= config->window_size ||
	    size > config->window_size - offset ||
	    size / config->chunk_size >
	    config->chunk_size - VIRTIO_ISM_SLAB_BELLS ||
	    chunk <= offset / config->chunk_size ||
	    chunk >= (offset + size) / config->chunk_size) {
		dev_err_ratelimited(&ism->vdev->dev,
				    "device placed a slab of %#llx bytes at %#llx\n",
				    size, offset);
		return ERR_PTR(-EPROTO);
	}

	slab = kzalloc_obj(*slab);
	if (!slab)
		return ERR_PTR(-ENOMEM);
	slab->first = offset / config->chunk_size;
	slab->chunks = size / config->chunk_size;
	slab->side = side;
	slab->addr = ism->window->addr + offset;
	return slab;
}

/*
 * Get a reference to the slab of a DMB that was just allocated or attached;
 * NULL if the device has no bells.
 */
struct ism_slab *ism_slab_get(struct virtio_ism *ism, u64 token, u32 chunk)
{
	struct ism_slab *slab;
	unsigned long flags;

	if (!(ism->config.features & VIRTIO_ISM_FEATURE_BELLS))
		return NULL;
	slab = ism_slab_find(ism, chunk);
	if (!slab) {
		slab = ism_slab_query(ism, token, chunk);
		if (IS_ERR(slab))
			return slab;
		spin_lock_irqsave(&ism->bell_lock, flags);
		list_add_tail(&slab->list, &ism->slabs);
		ism_slab_set_awake(slab, ism->awake);
		spin_unlock_irqrestore(&ism->bell_lock, flags);
		WRITE_ONCE(ism_slab_side(slab, slab->side)->present,
			   cpu_to_le32(1));
	}
	slab->users++;
	return slab;
}

/* Must be called before the DMB is detached. */
void ism_slab_put(struct virtio_ism *ism, struct ism_slab *slab)
{
	unsigned long flags;

	lockdep_assert_held(&ism->map_lock);

	if (!slab || --slab->users)
		return;
	spin_lock_irqsave(&ism->bell_lock, flags);
	list_del(&slab->list);
	ism_slab_set_awake(slab, false);
	spin_unlock_irqrestore(&ism->bell_lock, flags);
	kfree(slab);
}

/* Own bells */

/* Must be called before the peer learns the token. */
void ism_bell_add(struct virtio_ism *ism, struct ism_bell *bell,
		  struct ism_slab *slab, u32 chunk)
{
	unsigned long flags;

	INIT_LIST_HEAD(&bell->list);
	if (!slab)
		return;
	bell->chunk = chunk;
	bell->byte = ism_slab_bell(slab, chunk);
	WRITE_ONCE(*bell->byte, 0);
	spin_lock_irqsave(&ism->bell_lock, flags);
	list_add(&bell->list, &ism->bells);
	WRITE_ONCE(ism->bell_bytes[chunk], bell->byte);
	spin_unlock_irqrestore(&ism->bell_lock, flags);
}

void ism_bell_del(struct virtio_ism *ism, struct ism_bell *bell)
{
	unsigned long flags;

	if (!bell->byte)
		return;
	spin_lock_irqsave(&ism->bell_lock, flags);
	list_del_init(&bell->list);
	WRITE_ONCE(ism->bell_bytes[bell->chunk], NULL);
	spin_unlock_irqrestore(&ism->bell_lock, flags);
	bell->byte = NULL;
}

/* The device reported a doorbell: all rings so far are being handled. */
void ism_bell_clear(struct virtio_ism *ism, u32 chunk)
{
	unsigned long flags;

	spin_lock_irqsave(&ism->bell_lock, flags);
	if (ism->bell_bytes[chunk])
		WRITE_ONCE(*ism->bell_bytes[chunk], 0);
	spin_unlock_irqrestore(&ism->bell_lock, flags);
	/* Cleared before the DMB is read: a ring from now on is a new one. */
	mb();
}

/* Poll all bells once; returns true if one was set. */
static bool ism_look(struct virtio_ism *ism)
{
	u32 rung[ISM_LOOK_MAX];
	struct ism_bell *bell;
	unsigned long flags;
	unsigned int n, i;
	bool any = false;

	do {
		n = 0;
		spin_lock_irqsave(&ism->bell_lock, flags);
		list_for_each_entry(bell, &ism->bells, list) {
			if (!READ_ONCE(*bell->byte))
				continue;
			WRITE_ONCE(*bell->byte, 0);
			rung[n++] = bell->chunk;
			if (n == ISM_LOOK_MAX)
				break;
		}
		spin_unlock_irqrestore(&ism->bell_lock, flags);
		if (!n)
			break;
		any = true;
		/* As in ism_bell_clear() */
		mb();

		/* The client's tasklet runs at local_bh_enable(). */
		local_bh_disable();
		spin_lock_irqsave(&ism->dibs->lock, flags);
		for (i = 0; i < n; i++)
			ism_deliver(ism, rung[i]);
		spin_unlock_irqrestore(&ism->dibs->lock, flags);
		local_bh_enable();
		ism_count_add(ism, ISM_BELLS_POLLED, n);
	} while (n == ISM_LOOK_MAX);

	return any;
}

/* The polling thread */

static bool ism_poll_wanted(struct virtio_ism *ism)
{
	u64 now = local_clock();
	s64 age;

	if (READ_ONCE(ism->traffic)) {
		WRITE_ONCE(ism->traffic, false);
		ism->last_traffic = now;
	}
	age = now - ism->last_traffic;
	return age < (s64)READ_ONCE(poll_us) * NSEC_PER_USEC;
}

/* Slow path of ism_poll_traffic() */
void ism_poller_wake(struct virtio_ism *ism)
{
	/* Without the poller nothing would clear ism->traffic. */
	if (!READ_ONCE(poll_us))
		return;
	WRITE_ONCE(ism->traffic, true);
	/* Pairs with the barrier in ism_poller(). */
	smp_mb();
	if (READ_ONCE(ism->poller_sleeps))
		wake_up_process(ism->poller);
}

/* bell_lock held; the caller must issue mb() afterwards */
static void ism_set_awake(struct virtio_ism *ism, bool awake)
{
	struct ism_slab *slab;

	if (ism->awake == awake)
		return;
	ism->awake = awake;
	list_for_each_entry(slab, &ism->slabs, list)
		ism_slab_set_awake(slab, awake);
}

static bool ism_should_yield(void)
{
	return need_resched() || test_thread_flag(TIF_NEED_RESCHED_LAZY);
}

/* The thread is on the processor, and polls from now on. */
static void ism_poll_begin(struct virtio_ism *ism)
{
	bool soon = local_clock() - ism->left < ISM_SOON_NS;
	unsigned long flags;

	ism->soon = soon ? min(ism->soon + 1, ISM_SOON_TIMES) : 0;
	spin_lock_irqsave(&ism->bell_lock, flags);
	ism->looking = true;
	ism_set_awake(ism, true);
	spin_unlock_irqrestore(&ism->bell_lock, flags);
	/*
	 * The awake word is visible before the bells are read next. A writer
	 * sets the bell before it reads the word: one of the two sees the
	 * other.
	 */
	mb();
}

/*
 * The thread yields the processor, and stays marked awake if it is expected
 * back. Returns true if a bell was set before it was marked asleep.
 */
static bool ism_poll_end(struct virtio_ism *ism, bool stay)
{
	bool start = false;
	unsigned long flags;

	stay = stay && ism->soon == ISM_SOON_TIMES;
	ism->left = local_clock();
	spin_lock_irqsave(&ism->bell_lock, flags);
	ism->looking = false;
	if (!stay)
		ism_set_awake(ism, false);
	else if (!ism->guarded)
		start = ism->guarded = true;
	spin_unlock_irqrestore(&ism->bell_lock, flags);

	if (start)
		hrtimer_start(&ism->guard, ns_to_ktime(ISM_GUARD_NS),
			      HRTIMER_MODE_REL_SOFT);
	if (stay)
		return false;
	/* As in ism_poll_begin() */
	mb();
	return ism_look(ism);
}

/* The thread may be away for longer than expected: poll in its place. */
static enum hrtimer_restart ism_guard(struct hrtimer *timer)
{
	struct virtio_ism *ism = container_of(timer, struct virtio_ism, guard);
	unsigned long flags;
	bool away;

	spin_lock_irqsave(&ism->bell_lock, flags);
	ism->guarded = false;
	away = !ism->looking;
	if (away)
		ism_set_awake(ism, false);
	spin_unlock_irqrestore(&ism->bell_lock, flags);
	if (away) {
		/* As in ism_poll_begin() */
		mb();
		ism_look(ism);
	}
	return HRTIMER_NORESTART;
}

/* Poll until a bell is set, something else is runnable, or traffic ends. */
static void ism_poll(struct virtio_ism *ism)
{
	bool rung = false, yield = false, wanted = true;

	preempt_disable();
	ism_poll_begin(ism);
	while (!rung && !yield && wanted) {
		rung = ism_look(ism);
		cpu_relax();
		yield = ism_should_yield();
		wanted = ism_poll_wanted(ism);
	}
	rung |= ism_poll_end(ism, rung || wanted);
	preempt_enable();

	if (rung)
		WRITE_ONCE(ism->traffic, true);
}

/* Make peers use the doorbell; returns true if a bell was set before that. */
static bool ism_doze(struct virtio_ism *ism)
{
	if (!READ_ONCE(ism->awake))
		return false;
	return ism_poll_end(ism, false);
}

static int ism_poller(void *data)
{
	struct virtio_ism *ism = data;

	while (!kthread_should_stop()) {
		if (ism_poll_wanted(ism)) {
			ism_poll(ism);
			/*
			 * Other runnable threads go first, however much of its
			 * time slice this thread has left.
			 */
			yield();
			continue;
		}
		if (ism_doze(ism)) {
			WRITE_ONCE(ism->traffic, true);
			continue;
		}
		set_current_state(TASK_IDLE);
		WRITE_ONCE(ism->poller_sleeps, true);
		/* Pairs with the barrier in ism_poller_wake(). */
		smp_mb();
		if (!ism_poll_wanted(ism) && !kthread_should_stop())
			schedule();
		WRITE_ONCE(ism->poller_sleeps, false);
		__set_current_state(TASK_RUNNING);
	}
	ism_doze(ism);
	return 0;
}

int ism_bells_init(struct virtio_ism *ism)
{
	spin_lock_init(&ism->bell_lock);
	INIT_LIST_HEAD(&ism->slabs);
	INIT_LIST_HEAD(&ism->bells);
	hrtimer_setup(&ism->guard, ism_guard, CLOCK_MONOTONIC,
		      HRTIMER_MODE_REL_SOFT);
	ism->bell_bytes = kvcalloc(ism->config.chunks,
				   sizeof(*ism->bell_bytes), GFP_KERNEL);
	return ism->bell_bytes ? 0 : -ENOMEM;
}

/* Called last in probe. Without the thread there are only interrupts. */
void ism_bells_start(struct virtio_ism *ism)
{
	struct task_struct *poller;

	if (!(ism->config.features & VIRTIO_ISM_FEATURE_BELLS))
		return;
	ism->last_traffic = local_clock() - NSEC_PER_SEC;
	poller = kthread_create(ism_poller, ism, "ism/%s",
				dev_name(&ism->vdev->dev));
	if (IS_ERR(poller)) {
		dev_warn(&ism->vdev->dev, "no thread to poll bells: %ld\n",
			 PTR_ERR(poller));
		return;
	}
	sched_set_normal(poller, MAX_NICE);
	/* Interrupts may still wake it after it has exited. */
	ism->poller = get_task_struct(poller);
	wake_up_process(poller);
}

/* From here on rings arrive by doorbell and interrupt only. */
void ism_bells_stop(struct virtio_ism *ism)
{
	if (ism->poller)
		kthread_stop(ism->poller);
	hrtimer_cancel(&ism->guard);
}

void ism_bells_free(struct virtio_ism *ism)
{
	struct ism_slab *slab, *next;

	list_for_each_entry_safe(slab, next, &ism->slabs, list)
		kfree(slab);
	kvfree(ism->bell_bytes);
	if (ism->poller)
		put_task_struct(ism->poller);
}

/* Bells of peers */

/* Find the bell of an attached DMB's owner; none if the owner has no bells. */
void ism_ringer_init(struct ism_ringer *ringer, struct ism_slab *slab,
		     u32 chunk)
{
	struct virtio_ism_slab_side *owner;

	ringer->bell = NULL;
	if (!slab)
		return;
	owner = ism_slab_side(slab, !slab->side);
	if (!READ_ONCE(owner->present))
		return;
	ringer->awake = &owner->awake;
	ringer->bell = ism_slab_bell(slab, chunk);
}
