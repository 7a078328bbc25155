// SPDX-License-Identifier: GPL-2.0
/*
 * virtio-ism: attaching the DMBs of peers
 *
 * A peer's DMB must be attached before this guest can write to it. In the
 * default mode the client attaches it (attach_dmb()), fills it through the
 * mapping and calls move_data() only for its small control message. In copy
 * mode the first write attaches it (ism_queue.c).
 */

#include <linux/slab.h>

#include "ism_attachment.h"

/* attach_lock held; fails when the device's maximum is reached */
bool ism_attachment_insert(struct virtio_ism *ism, struct ism_attachment *att)
{
	if (ism->attachment_count >= ism->config.max_dmbs)
		return false;
	ism->attachment_count++;
	hash_add_rcu(ism->attachments, &att->node, att->token);
	return true;
}

/* attach_lock held; free with kfree_rcu() */
void ism_attachment_remove(struct virtio_ism *ism, struct ism_attachment *att)
{
	spin_lock(&att->lock);
	att->state = ISM_DETACHED;
	spin_unlock(&att->lock);
	hash_del_rcu(&att->node);
	ism->attachment_count--;
}

struct ism_attachment *ism_attachment_alloc(struct virtio_ism *ism, u64 token,
					    gfp_t gfp)
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

/* Attach the DMB in the device, and fill in its position */
int ism_attachment_map(struct virtio_ism *ism, struct ism_attachment *att)
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

int ism_attachment_unmap(struct virtio_ism *ism, struct ism_attachment *att)
{
	int ret;

	lockdep_assert_held(&ism->map_lock);

	ism_slab_put(ism, att->slab);
	ret = ism_detach_token(ism, att->token);
	ism_area_release(ism, att->chunk, att->len);
	return ret;
}

/*
 * attach_dmb() and detach_dmb(): the client may attach a DMB for a new
 * connection before the previous one has detached it, but the device attaches
 * a token only once. Hence the user count.
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
	/* Still valid: map_lock prevents its removal. */
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
		/*
		 * ism_move() takes no lock: wait for callers that found the
		 * attachment. Expedited, because a close() of the connection
		 * is waiting.
		 */
		synchronize_rcu_expedited();
		ret = ism_attachment_unmap(ism, att);
		kfree(att);
	}
	mutex_unlock(&ism->map_lock);
	return ret;
}

void ism_attachments_init(struct virtio_ism *ism)
{
	spin_lock_init(&ism->attach_lock);
	hash_init(ism->attachments);
}

/* After the reset, which detached everything */
void ism_attachments_free(struct virtio_ism *ism)
{
	struct ism_attachment *att;
	struct hlist_node *tmp;
	int bucket;

	hash_for_each_safe(ism->attachments, bucket, tmp, att, node) {
		hash_del(&att->node);
		kfree(att);
	}
}
