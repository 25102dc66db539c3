const app = getApp()

const REASONS = {
  sold_out: 'One of the dishes has just sold out',
  no_such_dish: 'One of the dishes is no longer on the menu',
  not_signed_in: 'Please sign in'
}

Page({
  data: {
    lines: [],
    total: 0,
    remark: '',
    submitting: false
  },

  onShow() {
    const lines = Object.values(app.globalData.cart)
    this.setData({
      lines,
      total: lines.reduce((sum, { dish, count }) => sum + dish.price * count, 0)
    })
  },

  onRemark(e) {
    this.setData({ remark: e.detail.value })
  },

  onRemove(e) {
    delete app.globalData.cart[e.currentTarget.dataset.id]
    this.onShow()
  },

  async onSubmit() {
    if (this.data.submitting || this.data.lines.length === 0) return
    this.setData({ submitting: true })
    try {
      await app.globalData.signedIn
      const { result } = await wx.cloud.callFunction({
        name: 'order',
        data: {
          action: 'submit',
          items: this.data.lines.map(({ dish, count }) => ({ dishId: dish._id, count })),
          remark: this.data.remark
        }
      })
      if (!result.success) {
        wx.showModal({ title: 'Not ordered', content: REASONS[result.reason] || result.reason, showCancel: false })
        return
      }
      app.globalData.cart = {}
      wx.switchTab({ url: '/pages/orders/orders' })
    } catch (err) {
      console.error(err)
      wx.showToast({ title: 'Please try again', icon: 'none' })
    } finally {
      this.setData({ submitting: false })
    }
  }
})
