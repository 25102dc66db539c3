App({
  onLaunch() {
    if (!wx.cloud) {
      console.error('This mini program needs base library 2.2.3 or newer')
      return
    }
    wx.cloud.init({
      env: 'order-food-3g8ldgo6c1',
      traceUser: true
    })
    this.signIn()
  },

  // Pages that need the user await this promise.
  signIn() {
    this.globalData.signedIn = wx.cloud.callFunction({ name: 'login' })
      .then(({ result }) => {
        this.globalData.openid = result.openid
        return result
      })
    return this.globalData.signedIn
  },

  globalData: {
    openid: '',
    signedIn: null,
    // dishId -> { dish, count }
    cart: {}
  }
})
