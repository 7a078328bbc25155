/* SPDX-License-Identifier: GPL-2.0 */
/*
 * virtio-ism: attached DMBs of peers
 */

#ifndef ISM_ATTACHMENT_H
#define ISM_ATTACHMENT_H

#include <linux/rculist.h>

#include "ism_bell.h"

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

	spinlock_t lock;	/* all below, against detach */
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

/* rcu_read_lock or attach_lock held */
static inline struct ism_attachment *
ism_attachment_find(struct virtio_ism *ism, u64 token)
{
	struct ism_attachment *att;

	hash_for_each_possible_rcu(ism->attachments, att, node, token,
				   lockdep_is_held(&ism->attach_lock)) {
		if (att->token == token)
			return att;
	}
	return NULL;
}

/* ism_attach.c */
bool ism_attachment_insert(struct virtio_ism *ism, struct ism_attachment *att);
void ism_attachment_remove(struct virtio_ism *ism, struct ism_attachment *att);
struct ism_attachment *ism_attachment_alloc(struct virtio_ism *ism, u64 token,
					    gfp_t gfp);
int ism_attachment_map(struct virtio_ism *ism, struct ism_attachment *att);
int ism_attachment_unmap(struct virtio_ism *ism, struct ism_attachment *att);

/* ism_move.c */
int ism_write_now(struct virtio_ism *ism, struct ism_attachment *att,
		  bool signal, unsigned int offset, const void *data,
		  unsigned int size);

/* ism_queue.c */
int ism_queue_write(struct virtio_ism *ism, struct ism_attachment *att,
		    bool signal, unsigned int offset, const void *data,
		    unsigned int size);
int ism_queue_first_write(struct virtio_ism *ism, u64 token, bool signal,
			  unsigned int offset, const void *data,
			  unsigned int size);

#endif
