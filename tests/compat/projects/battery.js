// The database as functions use it, through whichever SDK the function has. Copied into each function before the deploy;
// index.js hands over the SDK's database and how the SDK wraps what is written.
module.exports = ({ db, quiet, wrap }) => {
  const _ = db.command
  const $ = _.aggregate

  const fill = async (name, documents) => {
    await db.createCollection(name)
    // One after the other: their order is part of some answers.
    for (const document of documents) await db.collection(name).add(wrap(document))
    return db.collection(name)
  }
  const ids = async (query) => (await query.get()).data.map((document) => document._id).sort().join('')
  const told = async (run) => {
    try {
      return { answer: await run() }
    } catch (error) {
      return { code: error.errCode ?? error.code, message: String(error.errMsg ?? error.message) }
    }
  }
  const rows = async (pipeline) => {
    const answer = await pipeline.end()
    return answer.list ?? answer.data
  }
  const named = async (queries, run) => {
    const answers = await Promise.all(Object.values(queries).map(run))
    return Object.fromEntries(Object.keys(queries).map((name, at) => [name, answers[at]]))
  }

  const filters = async (name) => {
    const items = await fill(name, [
      { _id: 'a', n: 1, tags: ['x', 'y'], o: { p: 1, q: { r: 's' } }, at: new Date(1000) },
      { _id: 'b', n: 2, tags: ['y'], o: { p: 2 }, at: new Date(2000) },
      { _id: 'c', n: 3.5, tags: [], m: 3.5, list: [{ k: 1, v: 5 }, { k: 2, v: 9 }] },
      { _id: 'd', n: '2', tags: 'y', list: [{ k: 1, v: 9 }] },
      { _id: 'e', n: null, tags: [['x']], text: 'Hello\nWorld' },
      { _id: 'f', text: 'hello' },
    ])
    return named({
      value: { n: 2 }, nothing: { n: null }, object: { o: { p: 2 } }, nested: { o: { q: { r: 's' } } }, path: { 'o.q.r': 's' },
      eq: { n: _.eq(2) }, neq: { n: _.neq(2) }, gt: { n: _.gt(1) }, gte: { n: _.gte(2) }, lt: { n: _.lt(2) }, lte: { n: _.lte(2) },
      in: { n: _.in([1, '2', null]) }, nin: { n: _.nin([1, '2', null]) },
      chain: { n: _.gt(1).and(_.lt(3)) }, or: { n: _.eq(1).or(_.gt(3)) }, not: { n: _.not(_.gt(1)) }, nor: { n: _.nor([_.eq(1), _.eq(2)]) },
      and: _.and([{ n: _.gt(0) }, { tags: 'y' }]), either: _.or([{ n: 1 }, { text: 'hello' }]), neither: _.nor([{ n: _.exists(true) }, { m: 1 }]),
      exists: { m: _.exists(true) }, absent: { n: _.exists(false) }, mod: { n: _.mod(2, 1) },
      all: { tags: _.all(['x', 'y']) }, size: { tags: _.size(1) }, element: { list: _.elemMatch({ k: 1, v: _.gt(6) }) },
      array: { tags: ['y'] }, index: { 'list.0.v': 9 }, through: { 'list.v': 9 },
      expr: _.expr($.eq(['$n', '$m'])), schema: _.jsonSchema({ required: ['text'], properties: { text: { maxLength: 5 } } }),
      pattern: { text: /^hello/i }, lines: { text: db.RegExp({ regexp: '^world', options: 'im' }) }, case: { text: /^hello/ },
      date: { at: new Date(1000) }, later: { at: _.gt(new Date(1000)) }, wrong: { at: _.gt(1) }, soon: { at: _.lt(db.serverDate()) },
    }, (query) => ids(items.where(query)))
  }

  const reads = async (name) => {
    const items = await fill(name, Array.from({ length: 25 }, (_item, at) => ({ _id: String(at), n: at, odd: at % 2, list: [{ k: 1 }, { k: 2 }] })))
    const page = await items.where({ n: _.gte(10) }).orderBy('odd', 'desc').orderBy('n', 'asc').skip(2).limit(3).field({ n: true, _id: false }).get()
    const cut = await items.where({ _id: '1' }).field({ list: _.project.slice(-1), n: true }).get()
    const first = await items.where({ _id: '1' }).field({ list: _.project.elemMatch({ k: 2 }) }).get()
    const total = await items.where({ odd: 1 }).count()
    return { page: page.data, cut: cut.data, first: first.data, total: total.total, all: (await items.get()).data.length, rows: (await rows(items.aggregate().match({ n: _.gte(0) }))).length }
  }

  const updates = async (name) => {
    const before = { n: 5, s: 'x', list: [1, 2, 3], o: { p: 1, q: 2 }, objects: [{ k: 1, v: 1 }, { k: 2, v: 2 }] }
    const changes = {
      merge: { o: { q: 3, r: { s: 4 } } }, set: { o: _.set({ z: 1 }) }, path: { 'o.q': 9, 'o.new.deep': 1 }, remove: { s: _.remove(), 'o.p': _.remove() },
      inc: { n: _.inc(2), 'o.q': _.inc(-1) }, mul: { n: _.mul(3) }, min: { n: _.min(2) }, max: { n: _.max(9) }, rename: { s: _.rename('t') },
      push: { list: _.push([4, 5]) }, place: { list: _.push({ each: [9, 0], position: 1 }) }, top: { list: _.push({ each: [7], sort: -1, slice: 3 }) },
      pop: { list: _.pop() }, shift: { list: _.shift() }, unshift: { list: _.unshift([0]) }, pull: { list: _.pull(_.gt(1)) }, pullAll: { list: _.pullAll([1, 3]) },
      addToSet: { list: _.addToSet(3) }, addEach: { list: _.addToSet({ $each: [3, 4] }) }, bit: { n: _.bit({ and: 4 }) }, pullObjects: { objects: _.pull({ k: 1 }) },
      index: { 'objects.1.v': _.inc(5) }, every: { 'objects.$[].v': _.inc(1) }, date: { at: new Date(5) }, type: { n: [1, { a: null }] },
    }
    const items = await fill(name, [...Object.keys(changes), 'position'].map((id) => ({ _id: id, ...before })))
    const found = await named(Object.fromEntries(Object.keys(changes).map((id) => [id, id])), async (id) => {
      await items.doc(id).update(wrap(changes[id]))
      const { data: [{ _id, ...after }] } = await items.where({ _id: id }).get()
      const changed = Object.keys({ ...before, ...after }).filter((key) => JSON.stringify(before[key]) !== JSON.stringify(after[key]))
      return Object.fromEntries(changed.map((key) => [key, after[key] ?? null]))
    })
    await items.where({ _id: 'position', 'objects.k': 2 }).update(wrap({ 'objects.$.v': 'here' }))
    const { data: [position] } = await items.where({ _id: 'position' }).get()
    await items.doc('dated').set(wrap({ at: db.serverDate(), later: { on: db.serverDate({ offset: 60000 }) } }))
    const { data: [dated] } = await items.where({ _id: 'dated' }).get()
    return { ...found, position: position.objects, offset: dated.later.on - dated.at, near: Math.abs(Date.now() - dated.at) < 60000 }
  }

  const pipelines = async (name) => {
    const orders = await fill(name, [
      { _id: 'a', item: 'x', n: 2, tags: ['p', 'q'], at: new Date(86400000) },
      { _id: 'b', item: 'y', n: 5, tags: ['q'], at: new Date(0) },
      { _id: 'c', item: 'x', n: 4, tags: [], at: new Date(0) },
    ])
    await fill(`${name}_stock`, [{ _id: 's1', sku: 'x', have: 3 }, { _id: 's2', sku: 'y', have: 1 }, { _id: 's3', sku: 'x', have: 9 }])
    const from = `${name}_stock`
    const found = await named({
      group: orders.aggregate().match({ n: _.gt(1) }).group({ _id: '$item', total: $.sum('$n'), mean: $.avg('$n'), ids: $.push('$_id') }).sort({ _id: 1 }),
      lookup: orders.aggregate().lookup({ from, localField: 'item', foreignField: 'sku', as: 'stock' }).project({ have: '$stock.have' }).sort({ _id: 1 }),
      joined: orders.aggregate().lookup({
        from, let: { item: '$item', n: '$n' }, as: 'stock',
        pipeline: $.pipeline().match(_.expr($.and([$.eq(['$sku', '$$item']), $.gte(['$have', '$$n'])]))).project({ _id: 0, have: 1 }).done(),
      }).project({ stock: 1 }).sort({ _id: 1 }),
      unwind: orders.aggregate().unwind({ path: '$tags', includeArrayIndex: 'at', preserveNullAndEmptyArrays: true }).project({ tags: 1, at: 1 }).sort({ _id: 1, at: 1 }),
      bucket: orders.aggregate().bucket({ groupBy: '$n', boundaries: [0, 4, 10], default: 'other', output: { count: $.sum(1) } }),
      count: orders.aggregate().match({ item: 'x' }).count('total'),
      sortByCount: orders.aggregate().sortByCount('$item'),
      replaceRoot: orders.aggregate().replaceRoot({ newRoot: { only: '$n' } }).sort({ only: -1 }).skip(1).limit(1),
      expressions: orders.aggregate().match({ _id: 'a' }).project({
        _id: 0, day: $.dateToString({ date: '$at', format: '%Y-%m-%d %H', timezone: 'Asia/Shanghai' }), big: $.cond({ if: $.gt(['$n', 3]), then: 'yes', else: 'no' }),
        text: $.concat([$.toUpper('$item'), '-', '$item']), tags: $.reduce({ input: '$tags', initialValue: '', in: $.concat(['$$value', '$$this']) }),
        has: $.in(['q', '$tags']), many: $.size('$tags'), kept: $.filter({ input: '$tags', as: 'tag', cond: $.neq(['$$tag', 'p']) }),
      }),
      addFields: orders.aggregate().match({ _id: 'b' }).addFields({ double: $.multiply(['$n', 2]), none: $.ifNull(['$nope', 'nothing']) }).project({ double: 1, none: 1 }),
    }, rows)
    return { ...found, sample: (await rows(orders.aggregate().sample({ size: 2 }))).length }
  }

  const places = async (name) => {
    const { Point, LineString, Polygon, MultiPoint, MultiLineString, MultiPolygon } = db.Geo
    const square = (from, to) => new LineString([[from, from], [to, from], [to, to], [from, to], [from, from]].map(([x, y]) => new Point(x, y)))
    const line = new LineString([new Point(0, 0), new Point(3, 3)])
    const shapes = {
      point: new Point(113.5, 23.25), line, polygon: new Polygon([square(-2, 2), square(-1, 1)]), points: new MultiPoint([new Point(1, 2), new Point(3, 4)]),
      lines: new MultiLineString([line, new LineString([new Point(5, 5), new Point(6, 6)])]), polygons: new MultiPolygon([new Polygon([square(0, 1)]), new Polygon([square(2, 3)])]),
    }
    // The collection and its index are made before.
    const items = db.collection(name)
    await Promise.all([['a', 0, 0], ['b', 0, 0.01], ['c', 1, 1], ['d', 30, 30]].map(([id, x, y]) => items.add(wrap({ _id: id, place: new Point(x, y) }))))
    await items.add(wrap({ _id: 'shapes', ...shapes }))
    const { data: [kept] } = await items.where({ _id: 'shapes' }).get()
    const same = Object.keys(shapes).filter((key) => kept[key] instanceof shapes[key].constructor && JSON.stringify(kept[key]) === JSON.stringify(shapes[key]))
    const order = async (query) => (await items.where({ place: query }).get()).data.map((document) => document._id).join('')
    return {
      same,
      near: await order(_.geoNear({ geometry: new Point(0, 0.009), maxDistance: 200000 })),
      far: await order(_.geoNear({ geometry: new Point(0, 0), minDistance: 5000, maxDistance: 200000 })),
      within: await ids(items.where({ place: _.geoWithin({ geometry: new Polygon([square(-0.5, 0.5)]) }) })),
      circle: await ids(items.where({ place: _.geoWithin({ centerSphere: [[0, 0], 2000 / 6378100] }) })),
      intersects: await ids(items.where({ place: _.geoIntersects({ geometry: new LineString([new Point(0, -1), new Point(0, 1)]) }) })),
      nearest: await rows(items.aggregate().geoNear({ near: new Point(0, 0), spherical: true, distanceField: 'far', query: { _id: _.neq('a') }, key: 'place', limit: 1 }).project({ far: $.floor('$far') })),
    }
  }

  const errors = async (name) => {
    const items = await fill(name, [{ _id: 'a', n: 'x' }])
    return named({
      missing: () => items.doc('nobody').get(),
      quiet: async () => (await quiet.collection(name).doc('nobody').get()).data,
      duplicate: () => items.add(wrap({ _id: 'a' })),
      collection: () => db.collection(`${name}_not_there`).add(wrap({ n: 1 })),
      again: () => db.createCollection(name),
      arithmetic: () => items.doc('a').update(wrap({ n: _.inc(1) })),
      operator: () => items.where({ n: { $foo: 1 } }).get(),
      pattern: () => items.where({ n: db.RegExp({ regexp: '(', options: '' }) }).get(),
      near: () => items.where({ n: _.geoNear({ geometry: new db.Geo.Point(0, 0) }) }).get(),
      stage: () => items.aggregate().group({ total: $.sum('$n') }).end(),
      expression: () => items.aggregate().project({ n: $.divide([1, '$n']) }).end(),
      unchanged: async () => (await items.doc('a').get()).data,
    }, told)
  }

  const batteries = { filters, reads, updates, pipelines, places, errors }
  return (event) => batteries[event.battery](event.collection)
}
