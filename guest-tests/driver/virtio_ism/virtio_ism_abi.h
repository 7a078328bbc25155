/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Wire formats of the virtio-ism device of vhost-ism
 *
 * Names as in vhost-ism/docs/device.md. This file contains no code.
 */
#ifndef _VIRTIO_ISM_ABI_H
#define _VIRTIO_ISM_ABI_H

#include <linux/build_bug.h>
#include <linux/sizes.h>
#include <linux/stddef.h>
#include <linux/types.h>

#define VIRTIO_ID_ISM			44
#define VIRTIO_ID_ISM_ALIAS		37

/* Shared memory region with the DMB window and the doorbell area */
#define VIRTIO_ISM_SHM_ID		1

enum virtio_ism_queue {
	VIRTIO_ISM_QUEUE_CONTROL,
	VIRTIO_ISM_QUEUE_EVENT,
	VIRTIO_ISM_QUEUE_DOORBELL,	/* in copy mode the move queue */
	VIRTIO_ISM_QUEUES
};

/* Configuration space */

#define VIRTIO_ISM_GID_LEN		16

#define VIRTIO_ISM_MAGIC		0x4d534956	/* "VISM" */
#define VIRTIO_ISM_VERSION		1

#define VIRTIO_ISM_CHID_MIN		0xff00
#define VIRTIO_ISM_CHID_MAX		0xfffe

/* Bits of virtio_ism_config.features */
#define VIRTIO_ISM_FEATURE_PEER		BIT(0)
#define VIRTIO_ISM_FEATURE_AWAKE	BIT(1)
#define VIRTIO_ISM_FEATURE_BELLS	BIT(2)
#define VIRTIO_ISM_FEATURE_MOVE		BIT(3)

/* Alignment of start and length of the window */
#define VIRTIO_ISM_WINDOW_ALIGN		SZ_2M

struct virtio_ism_config {
	__le64 gid;			/* the fabric */
	__le64 devid;
	__le64 chunk_size;
	__le64 notify_size;
	__le32 magic;
	__le16 version;
	__le16 chid;
	__le32 features;
	__le32 max_dmbs;
	__u8 dmb_gid[VIRTIO_ISM_GID_LEN];
	__le64 window_size;
	__le64 doorbell_offset;
	__le64 doorbell_size;
	__le64 max_dmb_size;
};

static_assert(sizeof(struct virtio_ism_config) == 96);
static_assert(offsetof(struct virtio_ism_config, magic) == 32);
static_assert(offsetof(struct virtio_ism_config, version) == 36);
static_assert(offsetof(struct virtio_ism_config, chid) == 38);
static_assert(offsetof(struct virtio_ism_config, features) == 40);
static_assert(offsetof(struct virtio_ism_config, max_dmbs) == 44);
static_assert(offsetof(struct virtio_ism_config, dmb_gid) == 48);
static_assert(offsetof(struct virtio_ism_config, window_size) == 64);
static_assert(offsetof(struct virtio_ism_config, doorbell_offset) == 72);
static_assert(offsetof(struct virtio_ism_config, doorbell_size) == 80);
static_assert(offsetof(struct virtio_ism_config, max_dmb_size) == 88);

/*
 * Control queue: virtio_ism_ctrl_hdr and the command are device-readable,
 * one status byte and the reply are device-writable.
 */

enum virtio_ism_ctrl_class {
	VIRTIO_ISM_CTRL_ALLOC		= 0,
	VIRTIO_ISM_CTRL_ATTACH		= 1,
	VIRTIO_ISM_CTRL_DETACH		= 2,
	VIRTIO_ISM_CTRL_GRANT		= 3,
	VIRTIO_ISM_CTRL_EVENT_VECTOR	= 4,
	VIRTIO_ISM_CTRL_PEER		= 0x80,
};

/*
 * Commands of VIRTIO_ISM_CTRL_PEER; ATTACH and DETACH have only command 0. MOVE
 * is sent to the move queue.
 */
enum virtio_ism_ctrl_peer {
	VIRTIO_ISM_CTRL_PEER_ALLOC_FOR_PEER	= 0,
	VIRTIO_ISM_CTRL_PEER_QUERY_GID		= 1,
	VIRTIO_ISM_CTRL_PEER_SEND_MESSAGE	= 2,
	VIRTIO_ISM_CTRL_PEER_QUERY_SLAB		= 3,
	VIRTIO_ISM_CTRL_PEER_MOVE		= 4,
};

enum virtio_ism_status {
	VIRTIO_ISM_S_OK			= 0,
	VIRTIO_ISM_S_ENOENT		= 2,
	VIRTIO_ISM_S_E2BIG		= 7,
	VIRTIO_ISM_S_ENOMEM		= 12,
	VIRTIO_ISM_S_ENOSPC		= 28,
	VIRTIO_ISM_S_PERM_EATTACH	= 100,
	VIRTIO_ISM_S_PERM_EREAD		= 101,
	VIRTIO_ISM_S_PERM_EWRITE	= 102,
	VIRTIO_ISM_S_ERR		= 255,
};

enum virtio_ism_perm {
	VIRTIO_ISM_PERM_READ		= BIT(0),
	VIRTIO_ISM_PERM_WRITE		= BIT(1),
	VIRTIO_ISM_PERM_ATTACH		= BIT(2),
	VIRTIO_ISM_PERM_MANAGE		= BIT(3),
	VIRTIO_ISM_PERM_CLEAN_DEFAULT	= BIT(4),
};

struct virtio_ism_ctrl_hdr {
	__u8 class;
	__u8 cmd;
};

struct virtio_ism_area {
	__le64 offset;
	__le64 size;
};

struct virtio_ism_alloc_for_peer {
	__le64 size;
	__u8 peer_gid[VIRTIO_ISM_GID_LEN];
};

/* A DMB is contiguous: num is always 1 */
struct virtio_ism_alloc_reply {
	__le64 token;
	__le64 num;
	struct virtio_ism_area area;
};

/* Sent without the draft's trailing padding: its length is 12 bytes */
struct virtio_ism_attach {
	__le64 token;
	__le32 rw_perm;
} __packed;

struct virtio_ism_attach_reply {
	__le64 num;
	struct virtio_ism_area area;
};

struct virtio_ism_detach {
	__le64 token;
};

struct virtio_ism_query_gid {
	__u8 gid[VIRTIO_ISM_GID_LEN];
};

struct virtio_ism_send_message {
	__u8 peer_gid[VIRTIO_ISM_GID_LEN];
	__le32 code;
	__le32 reserved;
	__le64 info;
};

struct virtio_ism_query_slab {
	__le64 token;
};

struct virtio_ism_slab_reply {
	struct virtio_ism_area area;
	__le32 side;
	__le32 reserved;
};

/* The data follows */
struct virtio_ism_move {
	__le64 token;
	__le64 offset;
	__le32 flags;
	__le32 index;
};

#define VIRTIO_ISM_MOVE_SIGNAL		BIT(0)

static_assert(sizeof(struct virtio_ism_move) == 24);
static_assert(offsetof(struct virtio_ism_move, flags) == 16);
static_assert(sizeof(struct virtio_ism_ctrl_hdr) == 2);
static_assert(sizeof(struct virtio_ism_area) == 16);
static_assert(sizeof(struct virtio_ism_alloc_for_peer) == 24);
static_assert(sizeof(struct virtio_ism_alloc_reply) == 32);
static_assert(sizeof(struct virtio_ism_attach) == 12);
static_assert(sizeof(struct virtio_ism_attach_reply) == 24);
static_assert(sizeof(struct virtio_ism_detach) == 8);
static_assert(sizeof(struct virtio_ism_query_gid) == 16);
static_assert(sizeof(struct virtio_ism_send_message) == 32);
static_assert(offsetof(struct virtio_ism_send_message, info) == 24);
static_assert(sizeof(struct virtio_ism_query_slab) == 8);
static_assert(sizeof(struct virtio_ism_slab_reply) == 24);

/* Doorbell area */

/* le32, written by the device: non-zero while it polls the bytes */
#define VIRTIO_ISM_DOORBELL_AWAKE	0
/* One byte per chunk of the window */
#define VIRTIO_ISM_DOORBELL_BYTES	4096

/*
 * First chunk of a slab that two guests share: one header per side, then one
 * byte per chunk of the slab
 */
struct virtio_ism_slab_side {
	__le32 awake;			/* this side polls its bells */
	__le32 present;			/* this side supports bells */
	__u8 reserved[56];
};

#define VIRTIO_ISM_SLAB_BELLS		4096

static_assert(sizeof(struct virtio_ism_slab_side) == 64);

/* Event queue */

#define VIRTIO_ISM_EV_DOORBELLS		BIT_ULL(16)
#define VIRTIO_ISM_EV_PEER_GONE		BIT_ULL(17)
#define VIRTIO_ISM_EV_MESSAGE		BIT_ULL(18)

struct virtio_ism_ev_doorbells {
	__le64 ev_type;
	__le32 count;
	__le32 reserved;
	__le32 chunk[];
};

struct virtio_ism_ev_peer_gone {
	__le64 ev_type;
	__u8 gid[VIRTIO_ISM_GID_LEN];
};

struct virtio_ism_ev_message {
	__le64 ev_type;
	__u8 gid[VIRTIO_ISM_GID_LEN];
	__le32 code;
	__le32 reserved;
	__le64 info;
};

static_assert(sizeof(struct virtio_ism_ev_doorbells) == 16);
static_assert(sizeof(struct virtio_ism_ev_peer_gone) == 24);
static_assert(sizeof(struct virtio_ism_ev_message) == 40);
static_assert(offsetof(struct virtio_ism_ev_message, code) == 24);
static_assert(offsetof(struct virtio_ism_ev_message, info) == 32);

#endif /* _VIRTIO_ISM_ABI_H */
