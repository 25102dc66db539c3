const app = getApp()
const db = wx.cloud.database()
const SIZE = 10

Page({
  data: {
    orders: [],
    total: 0,
    unread: 0
  },

  onShow() {
    this.load(0)
  },

  async onPullDownRefresh() {
    await this.load(0)
    wx.stopPullDownRefresh()
  },

  onReachBottom() {
    const { orders, total } = this.data
    if (orders.length < total) this.load(Math.floor(orders.length / SIZE))
  },

  async load(page) {
    await app.globalData.signedIn
    const { result } = await wx.cloud.callFunction({ name: 'order', data: { action: 'mine', page, size: SIZE } })
    this.setData({
      total: result.total,
      orders: page === 0 ? result.orders : this.data.orders.slice(0, page * SIZE).concat(result.orders)
    })
    // Only the user's own messages can be read here: the collection is private to its owners.
    const unread = await db.collection('messages').where({ read: false }).count()
    this.setData({ unread: unread.total })
  },

  onCancel(e) {
    const { id } = e.currentTarget.dataset
    wx.showModal({
      title: 'Cancel this order?',
      success: async ({ confirm }) => {
        if (!confirm) return
        await wx.cloud.callFunction({ name: 'order', data: { action: 'cancel', id } })
        this.load(0)
      }
    })
  }
})
