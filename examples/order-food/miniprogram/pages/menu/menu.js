const app = getApp()
const db = wx.cloud.database()

Page({
  data: {
    categories: [],
    category: '',
    dishes: [],
    keyword: ''
  },

  async onLoad() {
    const { data } = await db.collection('categories').orderBy('rank', 'asc').get()
    this.setData({ categories: data })
    if (data.length > 0) this.choose(data[0]._id)
  },

  async onPullDownRefresh() {
    await this.choose(this.data.category)
    wx.stopPullDownRefresh()
  },

  onCategory(e) {
    this.choose(e.currentTarget.dataset.id)
  },

  choose(category) {
    this.setData({ category, keyword: '' })
    return this.show({ action: 'list', category })
  },

  onSearch(e) {
    const keyword = e.detail.value.trim()
    if (!keyword) return
    this.setData({ keyword, category: '' })
    this.show({ action: 'search', keyword })
  },

  show(data) {
    wx.showLoading({ title: 'Loading' })
    return wx.cloud.callFunction({ name: 'dishes', data })
      .then(res => {
        this.setData({ dishes: res.result.dishes || [] })
      })
      .catch(err => {
        console.error(err)
        wx.showToast({ title: 'Please try again', icon: 'none' })
      })
      .then(() => wx.hideLoading())
  },

  onAdd(e) {
    const dish = this.data.dishes[e.currentTarget.dataset.index]
    const { cart } = app.globalData
    const line = cart[dish._id] || { dish, count: 0 }
    if (line.count >= dish.stock) {
      wx.showToast({ title: 'No more left', icon: 'none' })
      return
    }
    cart[dish._id] = { dish, count: line.count + 1 }
    wx.showToast({ title: 'Added', icon: 'success' })
  }
})
