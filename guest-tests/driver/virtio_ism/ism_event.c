// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: the event queue
 *
 * Buffers are posted once and returned to the device as soon as they are read.
 * The device may change their content at any time, so every field is read once,
 * validated, and then used.
 */

#include <linux/ktime.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#include "ism_bell.h"

int ism_event_init(struct virtio_ism *ism)
{
	spin_lock_init(&ism->event_lock);
	ism->event_buffers = kcalloc(ISM_EVENT_BUFFERS, ISM_EVENT_SIZE,
				     GFP_KERNEL);
	return ism->event_buffers ? 0 : -ENOMEM;
}

void ism_event_free(struct virtio_ism *ism)
{
	kfree(ism->event_buffers);
}

static int ism_event_post(struct virtio_ism *ism, void *buffer)
{
	struct scatterlist sg;

	sg_init_one(&sg, buffer, ISM_EVENT_SIZE);
	return virtqueue_add_inbuf(ism->event_vq, &sg, 1, buffer, GFP_ATOMIC);
}

/* Post as many buffers as the queue takes. */
int ism_event_fill(struct virtio_ism *ism)
{
	unsigned long flags;
	int i, ret = 0;

	spin_lock_irqsave(&ism->event_lock, flags);
	for (i = 0; i < ISM_EVENT_BUFFERS && ism->event_vq->num_free; i++) {
		ret = ism_event_post(ism,
				     ism->event_buffers + i * ISM_EVENT_SIZE);
		if (ret)
			break;
	}
	spin_unlock_irqrestore(&ism->event_lock, flags);

	return i ? 0 : ret ?: -ENOSPC;
}

/**
 * ism_report_event() - report an event to all clients
 * @ism: the device
 * @event: the event
 *
 * Context: any
 */
void ism_report_event(struct virtio_ism *ism, const struct dibs_event *event)
{
	struct dibs_dev *dibs = ism->dibs;
	struct dibs_client *client;
	unsigned long flags;
	int i;

	spin_lock_irqsave(&dibs->lock, flags);
	for (i = 0; i < MAX_DIBS_CLIENTS; i++) {
		client = dibs->subs[i];
		if (client)
			client->ops->handle_event(dibs, event);
	}
	spin_unlock_irqrestore(&dibs->lock, flags);
}

/**
 * ism_deliver() - notify the client that one of its DMBs was written
 * @ism: the device
 * @chunk: first chunk of the DMB, within the window
 *
 * Context: dibs->lock held
 */
void ism_deliver(struct virtio_ism *ism, u32 chunk)
{
	struct dibs_dev *dibs = ism->dibs;
	struct dibs_client *client = NULL;
	u8 id;

	/* The array does not exist yet while the device is being added. */
	if (dibs->dmb_clientid_arr) {
		id = dibs->dmb_clientid_arr[chunk];
		client = id < MAX_DIBS_CLIENTS ? dibs->subs[id] : NULL;
	}
	if (!client) {
		ism_count(ism, ISM_DOORBELLS_STRAY);
		return;
	}
	client->ops->handle_irq(dibs, chunk, 0);
}

static bool ism_ev_doorbells(struct virtio_ism *ism,
			     const struct virtio_ism_ev_doorbells *ev,
			     unsigned int len)
{
	struct dibs_dev *dibs = ism->dibs;
	u32 count, fits, chunk, i;
	unsigned long flags;

	if (len < sizeof(*ev))
		return false;
	fits = (len - sizeof(*ev)) / sizeof(ev->chunk[0]);
	count = le32_to_cpu(READ_ONCE(ev->count));

	spin_lock_irqsave(&dibs->lock, flags);
	for (i = 0; i < min(count, fits); i++) {
		chunk = le32_to_cpu(READ_ONCE(ev->chunk[i]));
		if (chunk >= ism->config.chunks) {
			ism_count(ism, ISM_DOORBELLS_STRAY);
			continue;
		}
		ism_bell_clear(ism, chunk);
		ism_count(ism, ISM_DOORBELLS_RECEIVED);
		ism_deliver(ism, chunk);
	}
	spin_unlock_irqrestore(&dibs->lock, flags);
	ism_poll_traffic(ism);

	return count <= fits;
}

static bool ism_ev_peer_gone(struct virtio_ism *ism,
			     const struct virtio_ism_ev_peer_gone *ev,
			     unsigned int len)
{
	struct dibs_event event = {
		.type = DIBS_DEV_EVENT,
		.subtype = DIBS_DEV_DISABLED,
		.time = ktime_get_real_ns(),
	};

	if (len < sizeof(*ev))
		return false;
	import_uuid(&event.gid, ev->gid);
	if (!ism_gid_valid(&event.gid))
		return false;
	ism_count(ism, ISM_PEERS_GONE);
	ism_report_event(ism, &event);
	return true;
}

static bool ism_ev_message(struct virtio_ism *ism,
			   const struct virtio_ism_ev_message *ev,
			   unsigned int len)
{
	struct dibs_event event = {
		.type = DIBS_SW_EVENT,
		.time = ktime_get_real_ns(),
	};

	if (len < sizeof(*ev))
		return false;
	import_uuid(&event.gid, ev->gid);
	if (!ism_gid_valid(&event.gid))
		return false;
	event.subtype = le32_to_cpu(READ_ONCE(ev->code));
	event.data = le64_to_cpu(READ_ONCE(ev->info));
	ism_count(ism, ISM_MESSAGES_RECEIVED);
	ism_report_event(ism, &event);
	return true;
}

static void ism_event(struct virtio_ism *ism, const void *buffer,
		      unsigned int len)
{
	const __le64 *ev_type = buffer;
	bool good = false;

	ism_count(ism, ISM_EVENTS);
	len = min(len, ISM_EVENT_SIZE);
	if (len >= sizeof(*ev_type)) {
		switch (le64_to_cpu(READ_ONCE(*ev_type))) {
		case VIRTIO_ISM_EV_DOORBELLS:
			good = ism_ev_doorbells(ism, buffer, len);
			break;
		case VIRTIO_ISM_EV_PEER_GONE:
			good = ism_ev_peer_gone(ism, buffer, len);
			break;
		case VIRTIO_ISM_EV_MESSAGE:
			good = ism_ev_message(ism, buffer, len);
			break;
		}
	}
	if (!good)
		ism_count(ism, ISM_EVENTS_MALFORMED);
}

/* Callback of the event queue: hard interrupt, possibly spurious */
void ism_event_done(struct virtqueue *vq)
{
	struct virtio_ism *ism = vq->vdev->priv;
	bool notify = false;
	unsigned long flags;
	unsigned int len;
	void *buffer;

	spin_lock_irqsave(&ism->event_lock, flags);
	do {
		virtqueue_disable_cb(vq);
		while ((buffer = virtqueue_get_buf(vq, &len))) {
			ism_event(ism, buffer, len);
			/* Cannot fail: reuses the descriptor just returned. */
			ism_event_post(ism, buffer);
			notify = true;
		}
	} while (!virtqueue_enable_cb(vq));
	if (notify)
		notify = virtqueue_kick_prepare(vq);
	spin_unlock_irqrestore(&ism->event_lock, flags);

	if (notify)
		virtqueue_notify(vq);
}
