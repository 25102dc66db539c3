"""Places on a map: what GeoJSON and legacy coordinate pairs mean, and index keys for them.

Two geometries exist side by side, as in MongoDB. On the *sphere* edges are great circles (``$geometry``,
``$centerSphere``, ``$nearSphere``, 2dsphere indexes); on the *plane* longitude and latitude are plain numbers
(``$box``, ``$center``, ``$polygon``, legacy ``$near``, 2d indexes) and only single points take part.

``sphere`` has vectors and arcs, ``places`` what is stored, ``regions`` what is asked for, ``reading`` the
way from values to both, ``rects`` bounds in degrees, ``cells`` the quadtree whose cells are index keys,
``keys`` a document's keys, ``rings`` and ``nearest`` the search in order of distance.

No library does this for us: shapely is planar, and s2geometry's bindings are compiled for few systems and
untyped. What is needed here (arcs, point in polygon, rectangles of cells) is a few hundred lines. Angles are
in radians, coordinates in degrees (longitude first), distances on the sphere in radians.
"""
