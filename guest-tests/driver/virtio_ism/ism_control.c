// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: the control queue
 *
 * Any number of requests may be in flight. Each one waits with a time-out,
 * because a dead device gives no sign: its mappings stay, its queues stay
 * silent and no status bit changes. After the first time-out the device counts
 * as broken and no further command is sent. It is not reset: initialising a
 * device whose back end is gone can take down the VMM.
 *
 * Guests that only exchange data send no commands, and their doorbells vanish
 * unnoticed when the device is dead. So a harmless command is sent periodically
 * as long as memory is shared with a peer.
 *
 * The device may still write into a request that timed out, so its buffers
 * stay allocated until the device answers or is reset.
 */

#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#include "ism.h"

static unsigned int control_timeout = 5;
module_param(control_timeout, uint, 0644);
MODULE_PARM_DESC(control_timeout,
		 "Seconds to wait for the answer to a control command");

#define ISM_COMMAND_MAX	(sizeof(struct virtio_ism_send_message))
#define ISM_REPLY_MAX	(sizeof(struct virtio_ism_alloc_reply))

struct ism_request {
	bool done;
	bool abandoned;
	unsigned int used;

	/* Device-readable */
	struct {
		struct virtio_ism_ctrl_hdr hdr;
		u8 command[ISM_COMMAND_MAX];
	} __packed out ____cacheline_aligned;

	/* Device-writable */
	struct {
		u8 status;
		u8 reply[ISM_REPLY_MAX];
	} __packed in ____cacheline_aligned;
};

int ism_status_to_errno(u8 status)
{
	switch (status) {
	case VIRTIO_ISM_S_OK:
		return 0;
	case VIRTIO_ISM_S_ENOENT:
		return -ENOENT;
	case VIRTIO_ISM_S_E2BIG:
		return -E2BIG;
	case VIRTIO_ISM_S_ENOMEM:
		return -ENOMEM;
	case VIRTIO_ISM_S_ENOSPC:
		return -ENOSPC;
	case VIRTIO_ISM_S_PERM_EATTACH:
	case VIRTIO_ISM_S_PERM_EREAD:
	case VIRTIO_ISM_S_PERM_EWRITE:
		return -EACCES;
	default:
		return -EIO;
	}
}

static void ism_broken_work(struct work_struct *work)
{
	struct virtio_ism *ism = container_of(work, struct virtio_ism,
					      broken_work);

	ism_peers_gone(ism);
}

static unsigned long ism_timeout(void)
{
	return max(READ_ONCE(control_timeout), 1U) * HZ;
}

static void ism_watch_work(struct work_struct *work)
{
	struct virtio_ism *ism = container_of(to_delayed_work(work),
					      struct virtio_ism, watch_work);

	if (!list_empty_careful(&ism->peers))
		ism_query_gid(ism, &ism->config.gid);
	ism_watch_start(ism);
}

void ism_watch_start(struct virtio_ism *ism)
{
	queue_delayed_work(ism->wq, &ism->watch_work, ism_timeout());
}

void ism_watch_stop(struct virtio_ism *ism)
{
	cancel_delayed_work_sync(&ism->watch_work);
}

/* From here on every command fails immediately, and every link group ends. */
void ism_set_broken(struct virtio_ism *ism)
{
	unsigned long flags;
	bool was;

	spin_lock_irqsave(&ism->control_lock, flags);
	was = ism->broken;
	WRITE_ONCE(ism->broken, true);
	spin_unlock_irqrestore(&ism->control_lock, flags);
	if (was)
		return;
	wake_up_all(&ism->control_wait);
	queue_work(ism->wq, &ism->broken_work);
}

void ism_control_init(struct virtio_ism *ism)
{
	spin_lock_init(&ism->control_lock);
	init_waitqueue_head(&ism->control_wait);
	INIT_WORK(&ism->broken_work, ism_broken_work);
	INIT_DELAYED_WORK(&ism->watch_work, ism_watch_work);
}

/* Callback of the control queue: hard interrupt, possibly spurious */
void ism_control_done(struct virtqueue *vq)
{
	struct virtio_ism *ism = vq->vdev->priv;
	struct ism_request *req;
	unsigned long flags;
	unsigned int len;

	spin_lock_irqsave(&ism->control_lock, flags);
	do {
		virtqueue_disable_cb(vq);
		while ((req = virtqueue_get_buf(vq, &len))) {
			if (req->abandoned) {
				kfree(req);
				continue;
			}
			req->used = len;
			/* The waiter frees it once it has the lock. */
			WRITE_ONCE(req->done, true);
		}
		WRITE_ONCE(ism->control_rounds, ism->control_rounds + 1);
	} while (!virtqueue_enable_cb(vq));
	spin_unlock_irqrestore(&ism->control_lock, flags);

	wake_up_all(&ism->control_wait);
}

static int ism_control_post(struct virtio_ism *ism, struct ism_request *req,
			    size_t out_len, size_t in_len)
{
	struct scatterlist out, in, *sgs[] = { &out, &in };
	struct virtqueue *vq = ism->control_vq;
	unsigned long flags;
	bool notify = false;
	int ret;

	sg_init_one(&out, &req->out, out_len);
	sg_init_one(&in, &req->in, in_len);

	spin_lock_irqsave(&ism->control_lock, flags);
	if (ism->broken) {
		ret = -EIO;
	} else {
		ret = virtqueue_add_sgs(vq, sgs, 1, 1, req, GFP_ATOMIC);
		if (!ret)
			notify = virtqueue_kick_prepare(vq);
	}
	spin_unlock_irqrestore(&ism->control_lock, flags);

	if (notify)
		virtqueue_notify(vq);
	return ret;
}

/**
 * ism_control() - send a command and wait for its reply
 * @ism: the device
 * @class: class of the command
 * @cmd: command within the class
 * @command: bytes after the header
 * @command_len: length of @command
 * @reply: bytes after the status, may be NULL; only written on success
 * @reply_len: exact length of @reply
 *
 * Context: process, may sleep until the time-out.
 * Return: 0, or a negative errno; -EIO if the device is broken.
 */
int ism_control(struct virtio_ism *ism, u8 class, u8 cmd,
		const void *command, size_t command_len,
		void *reply, size_t reply_len)
{
	unsigned long left = ism_timeout();
	struct ism_request *req;
	unsigned long flags;
	unsigned int rounds;
	bool done;
	int ret;

	if (WARN_ON_ONCE(command_len > ISM_COMMAND_MAX ||
			 reply_len > ISM_REPLY_MAX))
		return -EINVAL;
	if (ism_is_broken(ism))
		return -EIO;

	req = kzalloc_obj(*req);
	if (!req)
		return -ENOMEM;
	req->out.hdr.class = class;
	req->out.hdr.cmd = cmd;
	memcpy(req->out.command, command, command_len);
	req->in.status = VIRTIO_ISM_S_ERR;

	for (;;) {
		rounds = READ_ONCE(ism->control_rounds);
		ret = ism_control_post(ism, req,
				       sizeof(req->out.hdr) + command_len,
				       sizeof(req->in.status) + reply_len);
		if (ret != -ENOSPC || !left)
			break;
		left = wait_event_timeout(ism->control_wait,
					  READ_ONCE(ism->control_rounds) != rounds ||
					  ism_is_broken(ism),
					  left);
	}
	if (ret) {
		/* The core breaks the queues of a device that was unplugged. */
		if (virtqueue_is_broken(ism->control_vq))
			ism_set_broken(ism);
		if (ret == -ENOSPC)
			ret = -EBUSY;
		kfree(req);
		goto failed;
	}
	ism_count(ism, ISM_COMMANDS);

	wait_event_timeout(ism->control_wait,
			   READ_ONCE(req->done) || ism_is_broken(ism), left);

	/* The lock orders the device's writes before the reads below. */
	spin_lock_irqsave(&ism->control_lock, flags);
	done = req->done;
	if (!done)
		req->abandoned = true;
	spin_unlock_irqrestore(&ism->control_lock, flags);

	if (!done) {
		if (!ism_is_broken(ism)) {
			ism_count(ism, ISM_COMMANDS_TIMED_OUT);
			dev_err(&ism->vdev->dev,
				"no answer to command %#x/%u, giving up on the device\n",
				class, cmd);
			ism_set_broken(ism);
		}
		ret = -EIO;
		goto failed;
	}

	if (!req->used)
		ret = -EPROTO;
	else
		ret = ism_status_to_errno(req->in.status);
	if (!ret && req->used != sizeof(req->in.status) + reply_len)
		ret = -EPROTO;
	if (!ret && reply_len)
		memcpy(reply, req->in.reply, reply_len);
	if (ret == -EPROTO)
		dev_err_ratelimited(&ism->vdev->dev,
				    "malformed answer to command %#x/%u: %u bytes, status %u\n",
				    class, cmd, req->used, req->in.status);
	kfree(req);
	if (!ret)
		return 0;
failed:
	ism_count(ism, ISM_COMMANDS_FAILED);
	return ret;
}

/* After the reset: the device no longer writes into abandoned requests. */
void ism_control_free(struct virtio_ism *ism)
{
	struct ism_request *req;

	while ((req = virtqueue_detach_unused_buf(ism->control_vq)))
		kfree(req);
}
