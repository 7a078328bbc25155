/* SPDX-License-Identifier: GPL-2.0 */
/*
 * virtio-ism as a dibs device: state and interfaces shared by its files
 */
#ifndef _ISM_H
#define _ISM_H

#include <linux/dibs.h>
#include <linux/hashtable.h>
#include <linux/hrtimer.h>
#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/seq_file.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/uuid.h>
#include <linux/virtio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "virtio_ism_abi.h"

/*
 * The index of a DMB is its first chunk, so this bounds the window: 512 MiB
 * with 16 KiB chunks. dibs sizes its arrays by it, whatever the real window.
 */
#define ISM_MAX_CHUNKS		32768

/* SMC releases only buffers with a DMA address other than 0. */
#define ISM_DMA_ADDR_NONE	(~(dma_addr_t)0)

#define ISM_EVENT_BUFFERS	64
#define ISM_EVENT_SIZE		256

/* DMBs remembered of which a write failed; tokens are not reused */
#define ISM_FAILED_TOKENS	16U

/* Counters in debugfs; ism_main.c has their names */
enum ism_counter {
	ISM_COMMANDS,
	ISM_COMMANDS_FAILED,
	ISM_COMMANDS_TIMED_OUT,
	ISM_DOORBELLS_RUNG,
	ISM_DOORBELLS_NOTIFIED,
	ISM_DOORBELLS_SKIPPED,
	ISM_DOORBELLS_RECEIVED,
	ISM_DOORBELLS_STRAY,
	ISM_BELLS_SEEN,
	ISM_BELLS_STILL_SET,
	ISM_BELLS_POLLED,
	ISM_EVENTS,
	ISM_EVENTS_MALFORMED,
	ISM_MESSAGES_SENT,
	ISM_MESSAGES_RECEIVED,
	ISM_PEERS_GONE,
	ISM_BYTES_MOVED,
	ISM_MOVES_POSTED,
	ISM_MOVES_WAITED,
	ISM_MOVES_NOTIFIED,
	ISM_MOVES_FAILED,
	ISM_WRITES_QUEUED,
	ISM_WRITES_DROPPED,
	ISM_DETACHES_DEFERRED,
	ISM_COUNTERS
};

/* Configuration space after the checks of ism_read_config() */
struct ism_config {
	u64 fabric;
	u64 devid;
	u32 chunk_size;
	u32 chunks;
	u32 features;
	u32 max_dmbs;
	u16 chid;
	uuid_t gid;
	u64 window_size;
	u64 doorbell_offset;
	u64 doorbell_size;
	u64 max_dmb_size;
};

/*
 * Shared memory region 1 with its struct pages. Separate from struct virtio_ism
 * because it must outlive the device while a page of it is still referenced.
 */
struct ism_window {
	struct dev_pagemap pgmap;
	u64 start;
	u64 len;
	void *addr;
	char name[24];
};

/*
 * Locks, outer to inner:
 *
 *	map_lock	mutex; held across commands that change mappings, so
 *			that the tables below always agree with the device
 *	attach_lock	BH; writers of the attachment table (readers use RCU)
 *	attachment.lock	BH; serialises writes to a peer's DMB with its detach
 *
 *	event_lock	hard interrupt; inside virtio-pci's own lock for INTx
 *	dibs->lock	hard interrupt; the client takes its own locks inside it
 *
 *	move_lock	BH; control_lock is taken inside
 *	control_lock	hard interrupt; leaf
 *	bell_lock	hard interrupt; leaf
 *
 * add_vlan_id() and del_vlan_id() are called under a lock that handle_irq()
 * takes inside dibs->lock: they must not take any of these.
 */
struct virtio_ism {
	struct virtio_device *vdev;
	struct dibs_dev *dibs;
	struct ism_config config;
	u64 __percpu *counters;
	struct workqueue_struct *wq;
	struct dentry *debugfs;
	bool copy;

	/* Control queue */
	struct virtqueue *control_vq;
	spinlock_t control_lock;	/* queue, broken, state of requests */
	wait_queue_head_t control_wait;
	unsigned int control_rounds;	/* callback runs, for a full queue */
	bool broken;
	struct work_struct broken_work;
	struct delayed_work watch_work;

	/* Event queue */
	struct virtqueue *event_vq;
	spinlock_t event_lock;		/* event_vq */
	void *event_buffers;

	/* Window and doorbell area */
	struct ism_window *window;
	u8 *doorbell;
	struct virtqueue *doorbell_vq;

	/* Move queue of a device in copy mode */
	spinlock_t move_lock;		/* all of these */
	struct virtqueue *move_vq;
	struct ism_move_slot **move_slots;
	struct ism_move_slot *move_free;
	u64 moves_failed[ISM_FAILED_TOKENS];
	unsigned int move_failures;

	/* Mappings */
	struct mutex map_lock;
	unsigned long *chunks_used;
	struct xarray dmbs;		/* own, by first chunk */
	unsigned int dmb_count;		/* own, deferred ones included */
	struct list_head peers;
	struct list_head deferred;	/* own, unregistered, still in use */
	struct delayed_work deferred_work;

	/* Bells */
	spinlock_t bell_lock;		/* from here to guarded */
	struct list_head slabs;		/* changed under map_lock as well */
	struct list_head bells;
	u8 **bell_bytes;		/* by chunk */
	bool awake;
	bool looking;			/* the poller is on the processor */
	bool guarded;			/* the guard timer is armed */
	struct hrtimer guard;
	bool traffic;			/* since the poller last cleared it */
	/* Private to the poller */
	u64 last_traffic;
	u64 left;			/* time it last yielded the processor */
	int soon;			/* consecutive short absences */
	bool poller_sleeps;		/* set only once poller is valid */
	struct task_struct *poller;

	/* Peers' DMBs, by token */
	spinlock_t attach_lock;		/* attachments, attachment_count */
	DECLARE_HASHTABLE(attachments, 8);
	unsigned int attachment_count;
	struct delayed_work idle_work;
	struct list_head starved;	/* map_lock: no room in the device yet */
	struct delayed_work starved_work;
	bool draining;			/* map_lock */
};

/* Numbers for the statistics in debugfs */
struct ism_dmb_usage {
	unsigned int chunks;
	unsigned int peers;
	unsigned int deferred;
};

static inline void ism_count_add(struct virtio_ism *ism,
				 enum ism_counter counter, unsigned int n)
{
	this_cpu_add(ism->counters[counter], n);
}

static inline void ism_count(struct virtio_ism *ism, enum ism_counter counter)
{
	ism_count_add(ism, counter, 1);
}

static inline bool ism_is_broken(const struct virtio_ism *ism)
{
	return READ_ONCE(ism->broken);
}

/* The device is in copy mode: it shares no memory between guests. */
static inline bool ism_moves_by_request(const struct virtio_ism *ism)
{
	return ism->config.features & VIRTIO_ISM_FEATURE_MOVE;
}

/* A zero high half is "any peer" to SMC; the low half identifies the peer. */
static inline bool ism_gid_valid(const uuid_t *gid)
{
	return memchr_inv(gid->b, 0, 8) && memchr_inv(gid->b + 8, 0, 8);
}

/* ism_control.c */
void ism_control_init(struct virtio_ism *ism);
int ism_status_to_errno(u8 status);
int ism_control(struct virtio_ism *ism, u8 class, u8 cmd,
		const void *command, size_t command_len,
		void *reply, size_t reply_len);
void ism_control_done(struct virtqueue *vq);
void ism_control_free(struct virtio_ism *ism);
void ism_set_broken(struct virtio_ism *ism);
void ism_watch_start(struct virtio_ism *ism);
void ism_watch_stop(struct virtio_ism *ism);

/* ism_event.c */
int ism_event_init(struct virtio_ism *ism);
int ism_event_fill(struct virtio_ism *ism);
void ism_event_done(struct virtqueue *vq);
void ism_event_free(struct virtio_ism *ism);
void ism_report_event(struct virtio_ism *ism, const struct dibs_event *event);
void ism_deliver(struct virtio_ism *ism, u32 chunk);

/* ism_dmb.c */
int ism_window_map(struct virtio_ism *ism);
void ism_window_unmap(struct virtio_ism *ism);
int ism_dmb_init(struct virtio_ism *ism);
void ism_dmb_drain(struct virtio_ism *ism);
void ism_dmb_free(struct virtio_ism *ism);
void ism_dmb_usage(struct virtio_ism *ism, struct ism_dmb_usage *usage);
int ism_dmb_register(struct virtio_ism *ism, struct dibs_dmb *dmb);
int ism_dmb_unregister(struct virtio_ism *ism, struct dibs_dmb *dmb);
int ism_area_claim(struct virtio_ism *ism, const struct virtio_ism_area *area,
		   u32 *chunk, u32 *len);
void ism_area_release(struct virtio_ism *ism, u32 chunk, u32 len);
int ism_detach_token(struct virtio_ism *ism, u64 token);
void ism_peers_gone(struct virtio_ism *ism);

/* ism_attach.c */
void ism_attachments_init(struct virtio_ism *ism);
void ism_attachments_free(struct virtio_ism *ism);
int ism_attach(struct virtio_ism *ism, struct dibs_dmb *dmb);
int ism_detach(struct virtio_ism *ism, u64 token);

/* ism_move.c */
int ism_move(struct virtio_ism *ism, u64 token, bool signal,
	     unsigned int offset, const void *data, unsigned int size);

/* ism_queue.c */
void ism_queue_init(struct virtio_ism *ism);
void ism_queue_drain(struct virtio_ism *ism);

/* ism_request.c */
int ism_moves_init(struct virtio_ism *ism);
void ism_moves_free(struct virtio_ism *ism);
int ism_move_by_request(struct virtio_ism *ism, u64 token, bool signal,
			unsigned int offset, const void *data,
			unsigned int size);

/* ism_dibs.c */
struct dibs_dev *ism_dibs_alloc(struct virtio_ism *ism);
int ism_query_gid(struct virtio_ism *ism, const uuid_t *gid);

#endif /* _ISM_H */
